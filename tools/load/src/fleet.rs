//! The worker processes, as the parent sees them, and what the run has cost so far.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::checks::{Census, Violations};
use crate::clock::{self, SECOND};
use crate::measure::Meter;
use crate::orders::{Answer, Order, Setup, Tally};
use crate::socket::Target;
use crate::visitor::Role;

/// Sockets of one process: many systems let it have 20,000 files, and leavers come on top.
const PROCESS_VISITORS_MAX: usize = 15_000;
/// More would need more than 240,000 sockets, which no run has had.
const PROCESSES_MAX: usize = 16;
/// Handshakes under way at once: as many as keep the node busy without filling a backlog.
const JOINING_DEFAULT: usize = 200;
/// A node that is there answers by then.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// By then everyone was told how many wait in all: a node says so every 20 s at least.
const SETTLE_WAIT_MAX: u64 = 25 * SECOND;
/// How often it is looked whether numbers have settled.
const SETTLE_LOOK_MILLIS: u64 = 500;

/// What every scenario takes.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The socket of a queue; once for each node, which get their visitors in turns
    #[arg(long = "url", value_name = "URL", value_parser = url)]
    #[arg(default_value = "ws://127.0.0.1:8080/ws/demo")]
    pub urls: Vec<String>,
    /// How many stand in line
    #[arg(long, default_value_t = 2_000, value_parser = at_least_one)]
    pub visitors: usize,
    /// A server process whose CPU time and memory are told
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// Handshakes that each process has under way at once
    #[arg(long, default_value_t = JOINING_DEFAULT, value_parser = at_least_one)]
    pub joining: usize,
    /// Only count what comes: for a server that tells everyone the same
    #[arg(long)]
    pub unchecked: bool,
}

fn url(text: &str) -> anyhow::Result<String> {
    Target::parse(text)?;
    Ok(text.to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("a whole number, at least 1".to_owned()),
    }
}

/// All workers. They end with it.
pub struct Fleet {
    workers: Vec<Worker>,
    /// What was counted so far.
    pub tally: Tally,
    /// The servers' CPU time and memory.
    pub servers: Meter,
    /// Our own.
    pub clients: Meter,
    checked: bool,
}

struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Fleet {
    /// Starts as many processes as so many sockets need.
    pub fn start(common: &Common, sockets: usize) -> anyhow::Result<Self> {
        let count = sockets.div_ceil(PROCESS_VISITORS_MAX).max(1);
        ensure!(count <= PROCESSES_MAX, "{sockets} sockets are more than this program can hold");
        for url in &common.urls {
            // Else everyone would try for minutes.
            let there = TcpStream::connect_timeout(&Target::parse(url)?.address, CONNECT_WAIT_MAX);
            there.with_context(|| format!("nothing answers at {url}"))?;
        }
        let mut workers = Vec::new();
        for process in 0..count {
            let setup = Setup {
                process: u8::try_from(process)?,
                urls: common.urls.clone(),
                joining_max: common.joining,
                checked: !common.unchecked,
            };
            workers.push(Worker::start(&setup)?);
        }
        let own = workers.iter().map(|worker| worker.child.id()).chain([std::process::id()]);
        let clients = Meter::new(own.collect())?;
        let servers = Meter::new(common.pids.clone())?;
        let checked = !common.unchecked;
        Ok(Self { workers, tally: Tally::default(), servers, clients, checked })
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        self.workers.len()
    }

    /// Gives all an order, and waits for their answers, after something that is done meanwhile.
    pub fn all_meanwhile(
        &mut self,
        order: impl Fn(usize) -> Order,
        meanwhile: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Answer>> {
        for (process, worker) in self.workers.iter_mut().enumerate() {
            worker.tell(&order(process))?;
        }
        meanwhile()?;
        let mut answers = Vec::new();
        for worker in &mut self.workers {
            let mut answer = worker.answer()?;
            self.tally.merge(std::mem::take(&mut answer.tally));
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Gives all an order, and waits for their answers.
    pub fn all(&mut self, order: impl Fn(usize) -> Order) -> anyhow::Result<Vec<Answer>> {
        self.all_meanwhile(order, || Ok(()))
    }

    /// Gives only the first an order.
    pub fn first(&mut self, order: &Order) -> anyhow::Result<Answer> {
        let worker = self.workers.first_mut().context("no worker")?;
        worker.tell(order)?;
        let mut answer = worker.answer()?;
        self.tally.merge(std::mem::take(&mut answer.tally));
        Ok(answer)
    }

    /// New visitors come, each process having its share.
    pub fn arrive(
        &mut self,
        role: Role,
        count: usize,
        joins: bool,
        url: Option<usize>,
    ) -> anyhow::Result<Vec<Answer>> {
        let size = self.size();
        self.all(|process| Order::Arrive { role, count: share(count, process, size), joins, url })
    }

    /// Where everyone stands.
    pub fn census(&mut self) -> anyhow::Result<Census> {
        let mut census = Census::default();
        for answer in self.all(|_| Order::Census)? {
            census.merge(answer.census.context("no census")?);
        }
        Ok(census)
    }

    /// Where everyone stands once their numbers have settled, and what is wrong with them then.
    pub fn settled(&mut self) -> anyhow::Result<(Census, Violations)> {
        let until = clock::now() + SETTLE_WAIT_MAX;
        loop {
            let census = self.census()?;
            let violations = if self.checked { census.judge() } else { Violations::default() };
            if violations.count == 0 || until <= clock::now() {
                return Ok((census, violations));
            }
            self.all(|_| Order::Serve { millis: SETTLE_LOOK_MILLIS })?;
        }
    }
}

/// What one process has of a whole.
pub fn share(whole: usize, process: usize, processes: usize) -> usize {
    whole / processes + usize::from(process < whole % processes)
}

impl Worker {
    fn start(setup: &Setup) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("where this program is")?;
        let mut command = Command::new(program);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("no further process")?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take().context("no output")?);
        let mut worker = Self { child, orders, answers: BufReader::new(answers) };
        worker.say(&serde_json::to_string(setup)?)?;
        Ok(worker)
    }

    fn tell(&mut self, order: &Order) -> anyhow::Result<()> {
        self.say(&serde_json::to_string(order)?)
    }

    fn say(&mut self, line: &str) -> anyhow::Result<()> {
        let orders = self.orders.as_mut().context("the worker has been let go")?;
        orders.write_all(format!("{line}\n").as_bytes()).context("a worker has ended")
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        if self.answers.read_line(&mut line).context("a worker")? == 0 {
            bail!("a worker has ended");
        }
        serde_json::from_str(&line).context("a worker's answer")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Without input it ends by itself; it must not be in the way if it is busy.
        self.orders = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_the_whole() {
        for processes in 1..8 {
            let shares = (0..processes).map(|process| share(17, process, processes));
            assert_eq!(shares.sum::<usize>(), 17);
        }
    }
}
