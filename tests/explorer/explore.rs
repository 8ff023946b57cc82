//! Breadth first over all worlds, each known by a hash of what can still make a difference: what goes wrong
//! is told by a shortest way to it.
//!
//! (Stateright 0.31 was tried: of the ways to a fault that it comes upon in a block of 1,500 states it tells
//! the last, it keeps the whole way to each state, and it brings eight crates along, a web server among
//! them. All that is needed is this loop.)

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::steps::Step;
use crate::world::{Variant, World};

/// How far it went.
#[derive(Clone, Copy, Default)]
pub(crate) struct Explored {
    /// All worlds were looked at to which so many steps lead.
    pub(crate) depth: usize,
    /// How many worlds there were.
    pub(crate) worlds: usize,
    /// How many of them were at rest.
    pub(crate) at_rest: usize,
    /// Whether there are no others.
    pub(crate) is_all: bool,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { depth, worlds, at_rest, is_all } = self;
        let all = if *is_all { "which are all, " } else { "" };
        write!(f, "{worlds} worlds, {all}complete to {depth} steps, {at_rest} at rest")
    }
}

/// What went wrong, and a shortest way to it.
#[derive(Clone, Debug)]
pub(crate) struct Wrong {
    pub(crate) what: &'static str,
    pub(crate) steps: Vec<Step>,
    pub(crate) world: World,
}

/// Looks at all worlds of a variant, the fewest steps first, until there are `worlds_max`.
pub(crate) fn explore(variant: &Variant, worlds_max: usize) -> Result<Explored, Box<Wrong>> {
    let begin = World::new(variant);
    let mut seen = HashSet::from([hash(&begin)]);
    // By which step each world came of which.
    let mut ways: Vec<(u32, Option<Step>)> = vec![(0, None)];
    let mut layer = vec![(0, begin)];
    let mut explored = Explored { worlds: 1, ..Explored::default() };
    let mut steps = Vec::new();
    while !layer.is_empty() {
        let mut next = Vec::new();
        for (number, world) in layer {
            steps.clear();
            world.by_itself(&mut steps);
            explored.at_rest += usize::from(steps.is_empty());
            let at_rest = steps.is_empty().then(|| world.wrong_at_rest()).flatten();
            if let Some(what) = world.fault.or(at_rest) {
                return Err(Box::new(Wrong { what, steps: way(&ways, number), world }));
            }
            world.by_chance(variant, &mut steps);
            for step in &steps {
                let mut then = world.clone();
                then.take(*step);
                if seen.insert(hash(&then)) {
                    next.push((u32::try_from(ways.len()).unwrap(), then));
                    ways.push((number, Some(*step)));
                }
            }
            if ways.len() >= worlds_max {
                explored.worlds = ways.len();
                return Ok(explored);
            }
        }
        layer = next;
        explored.depth += 1;
        explored.worlds = ways.len();
    }
    Ok(Explored { is_all: true, ..explored })
}

fn hash(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

fn way(ways: &[(u32, Option<Step>)], mut number: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    while let (before, Some(step)) = ways[number as usize] {
        steps.push(step);
        number = before;
    }
    steps.reverse();
    steps
}
