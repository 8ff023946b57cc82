//! A model of a site that is protected: people come, stay for a session and go, and the load that is
//! reported lags behind them. Its constants are drawn by a seed; the same seed gives the same run.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is cut off has a meaning in no figure here"
)]

use anteroom::queue::event::At;
use anteroom::queue::load::{CUT_ABOVE_MILLI, Followed, InForce, Load, Loads, floor, follow};

/// The constants of a site.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// People a minute that the operator allows.
    pub(crate) cap: u32,
    /// People a minute that bring the load to 1.0 in the long run, as a share of `cap`.
    pub(crate) sustainable: f64,
    /// How long people stay, in seconds: the mean.
    pub(crate) session: f64,
    /// How alike the sessions are: 1 is exponential, more are sums of as many (Erlang's distribution).
    pub(crate) stages: usize,
    /// From being let in to being there, in seconds: the mean.
    pub(crate) coming: f64,
    /// The time constant by which the site smooths what it reports, in seconds.
    pub(crate) smoothing: f64,
    /// Seconds between two reports.
    pub(crate) report_every: u32,
    /// A report is wrong by up to this, either way.
    pub(crate) noise: f64,
}

impl Site {
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut random = Random(seed);
        Self {
            cap: random.ratio(60.0, 60_000.0) as u32,
            sustainable: random.ratio(0.15, 1.5),
            session: random.ratio(30.0, 600.0),
            stages: 1 + random.below(3) as usize,
            coming: random.between(2.0, 15.0),
            smoothing: random.between(5.0, 30.0),
            report_every: 1 + random.below(10) as u32,
            noise: random.between(0.01, 0.05),
        }
    }

    /// People inside that are a load of 1.0.
    fn capacity(&self) -> f64 {
        self.sustainable * f64::from(self.cap) / 60.0 * self.session
    }
}

/// What happens to a site in one second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// How much of the capacity is there.
    pub(crate) capacity: f64,
    /// Load that does not come from the queue.
    pub(crate) background: f64,
    /// Whether the site reports.
    pub(crate) reports: bool,
    /// Whether people wait to be let in.
    pub(crate) wanted: bool,
    /// Whether another worker takes over, who has heard nothing yet.
    pub(crate) new_worker: bool,
}

pub(crate) const FAIR: Weather =
    Weather { capacity: 1.0, background: 0.0, reports: true, wanted: true, new_worker: false };

/// One second of a run.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    /// The load as it is, not as it is reported; above 1.0 the site is overloaded.
    pub(crate) load: f64,
    /// People a minute, in force.
    pub(crate) per_minute: u32,
    /// The change of the rate in this second.
    pub(crate) fact: Option<Followed>,
}

/// Runs a site for so many seconds beside a worker that looks at its loads when there is a report, and
/// every five seconds.
pub(crate) fn run(
    site: &Site,
    seed: u64,
    seconds: u32,
    weather: impl Fn(u32) -> Weather,
) -> Vec<Second> {
    const LOOK_EVERY: u32 = 5;
    const START: At = At(1_800_000_000_000_000_000);
    let mut random = Random(seed ^ 0x5eed);
    let mut loads = Loads::since(START);
    let mut rate = InForce { per_minute: site.cap, cap: site.cap, decided_at: None };
    let (mut coming, mut inside) = (0.0, vec![0.0; site.stages]);
    let mut smoothed = 0.0;
    let mut seen = Vec::new();
    for second in 0..seconds {
        let now = START.plus_seconds(second);
        let weather = weather(second);
        // Whoever is let in comes, stays through each stage, and goes.
        let mut moving = if weather.wanted { f64::from(rate.per_minute) / 60.0 } else { 0.0 };
        let stay = site.session / site.stages as f64;
        for (people, mean) in
            std::iter::once((&mut coming, site.coming)).chain(inside.iter_mut().map(|i| (i, stay)))
        {
            let going = *people * (1.0 - (-1.0 / mean).exp());
            *people += moving - going;
            moving = going;
        }
        let capacity = site.capacity() * weather.capacity;
        let load = inside.iter().sum::<f64>() / capacity + weather.background;
        smoothed += (load - smoothed) * (1.0 - (-1.0 / site.smoothing).exp());
        if weather.new_worker {
            loads = Loads::since(now);
        }
        let reported = weather.reports && second % site.report_every == 0;
        if reported {
            let noisy = smoothed + random.between(-site.noise, site.noise);
            loads.hear(Load { at: now, milli: (noisy.clamp(0.0, 1.0) * 1_000.0) as u16 });
        }
        let looks = reported || second % LOOK_EVERY == 0;
        let fact = looks.then(|| follow(&loads, &rate, weather.wanted, now)).flatten();
        if let Some(fact) = &fact {
            rate.per_minute = fact.per_minute;
            rate.decided_at = Some(now);
        }
        seen.push(Second { load, per_minute: rate.per_minute, fact });
    }
    seen
}

/// The day of a site: two hours of peace, then load from elsewhere, half of the capacity gone, and
/// silence, each with time to get over it.
pub(crate) fn day(second: u32) -> Weather {
    match second {
        STEP..STEP_END => Weather { background: 0.2, ..FAIR },
        HALF..HALF_END => Weather { capacity: 0.5, ..FAIR },
        SILENCE..SILENCE_END => Weather { reports: false, ..FAIR },
        _ => FAIR,
    }
}

pub(crate) const STEP: u32 = 7_200;
const STEP_END: u32 = STEP + 120;
pub(crate) const HALF: u32 = 8_100;
const HALF_END: u32 = HALF + 300;
pub(crate) const SILENCE: u32 = 9_900;
const SILENCE_END: u32 = SILENCE + 600;
pub(crate) const DAY_END: u32 = 12_600;
/// The last half hour of the peace, by which the longest sessions have come to rest.
const STEADY: u32 = STEP - 1_800;
/// This share of what a site bears is enough to have recovered.
const RECOVERED: f64 = 0.8;

/// What came of a day. What a site bears is the rate that brings its load to the upper edge of the
/// band in the long run, or the cap if that is less.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// The highest load in the two hours of peace, their beginning included.
    pub(crate) peak: f64,
    /// Minutes from the first report to four fifths of what the site bears.
    pub(crate) start_minutes: f64,
    /// What the rate did in the last half hour of the peace.
    pub(crate) steady: Steady,
    /// The highest load while a fifth of the capacity is used by others.
    pub(crate) step_peak: f64,
    /// Seconds over a load of 1.0 after half of the capacity has gone.
    pub(crate) half_over: i64,
    /// The same if nobody at all were let in from then on: so long there are too many inside, whatever
    /// is done.
    pub(crate) half_least: i64,
    /// Minutes from the return of the capacity to four fifths of what the site bears.
    pub(crate) half_minutes: f64,
    /// Seconds of silence to the floor.
    pub(crate) floor_seconds: f64,
    /// Changes between the floor and the end of the silence.
    pub(crate) silent_changes: usize,
    /// Minutes from the end of the silence to four fifths of what the site bears.
    pub(crate) silence_minutes: f64,
    /// The fewest seconds between two changes.
    pub(crate) gap: usize,
    /// Changes of the whole day, of three and a half hours.
    pub(crate) facts: usize,
}

/// What the rate did in half an hour in which nothing happened.
#[derive(Clone, Debug)]
pub(crate) struct Steady {
    /// The mean rate as a share of what the site bears.
    pub(crate) used: f64,
    /// The 95th percentile of the rate by its 5th.
    pub(crate) swing: f64,
    /// Changes of the rate.
    pub(crate) changes: usize,
    /// Changes that go the other way than the one before.
    pub(crate) turns: usize,
}

/// Figures of a day as [`day`] has it.
pub(crate) fn figures(site: &Site, seed: u64, day: &[Second]) -> Figures {
    let bears = bears(site);
    let part = |from: u32, to: u32| day.get(from as usize..to as usize).unwrap_or_default();
    let peak = |part: &[Second]| part.iter().map(|s| s.load).fold(0.0, f64::max);
    let over = |part: &[Second]| part.iter().filter(|s| s.load > 1.0).count() as i64;
    let first = |from: u32, is: &dyn Fn(f64) -> bool| {
        let found = part(from, DAY_END).iter().position(|s| is(f64::from(s.per_minute)));
        found.map_or(f64::INFINITY, |seconds| seconds as f64)
    };
    let recovered = |from| first(from, &|rate| rate >= RECOVERED * bears) / 60.0;
    let facts: Vec<usize> =
        day.iter().enumerate().filter(|(_, s)| s.fact.is_some()).map(|(n, _)| n).collect();
    let floor_seconds = first(SILENCE, &|rate| rate <= f64::from(floor(site.cap)));
    let at_floor = (f64::from(SILENCE) + floor_seconds + 1.0) as usize;
    let closed = |second| Weather { wanted: second < HALF, ..self::day(second) };
    let closed = run(site, seed, SILENCE, closed);
    let half_least = over(closed.get(HALF as usize..).unwrap_or_default());
    Figures {
        peak: peak(part(0, STEP)),
        start_minutes: recovered(0),
        steady: steady(site, day),
        step_peak: peak(part(STEP, STEP_END + 60)),
        half_over: over(part(HALF, SILENCE)),
        half_least,
        half_minutes: recovered(HALF_END),
        floor_seconds,
        silent_changes: facts
            .iter()
            .filter(|at| (at_floor..SILENCE_END as usize).contains(*at))
            .count(),
        silence_minutes: recovered(SILENCE_END),
        gap: facts.windows(2).filter_map(|w| Some(w.last()? - w.first()?)).min().unwrap_or(0),
        facts: facts.len(),
    }
}

/// What the rate did in the last half hour before anything happens.
pub(crate) fn steady(site: &Site, day: &[Second]) -> Steady {
    let steady = day.get(STEADY as usize..STEP as usize).unwrap_or_default();
    let mut rates: Vec<f64> = steady.iter().map(|s| f64::from(s.per_minute)).collect();
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    rates.sort_by(f64::total_cmp);
    let percentile =
        |hundredths: usize| rates.get(rates.len() * hundredths / 100).copied().unwrap_or(f64::NAN);
    let moves: Vec<bool> = steady
        .windows(2)
        .filter_map(|pair| match pair {
            [a, b] if a.per_minute != b.per_minute => Some(a.per_minute < b.per_minute),
            _ => None,
        })
        .collect();
    Steady {
        used: mean / bears(site),
        swing: percentile(95) / percentile(5),
        changes: moves.len(),
        turns: moves.windows(2).filter(|pair| pair.first() != pair.last()).count(),
    }
}

/// The rate that brings the load to the upper edge of the band in the long run, or the cap.
fn bears(site: &Site) -> f64 {
    let cap = f64::from(site.cap);
    cap.min(site.sustainable * cap * f64::from(CUT_ABOVE_MILLI) / 1_000.0)
}

/// Steele, Lea and Flood's SplitMix64 (2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Every ratio as likely as any other: as many from 1 to 2 as from 100 to 200.
    fn ratio(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }
}
