//! The rank of everyone who waits: from our set, and from a sorted set of Redis.

use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

use anteroom::queue::event::Ticket;
use anteroom::queue::places::Places;
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::joins::{SET, add_to_line, added_to_line, member};
use crate::memory::waiting;
use crate::redis::Redis;

/// Commands that are sent together: about as many as fill the socket's buffers without waiting.
const BATCH: usize = 1_000;

/// So many people wait in both. Everyone's rank is asked for in every way, one after the other; and
/// then again after one at the front has gone, and one in the middle.
pub(crate) fn ranks(address: &str, people: u32) -> anyhow::Result<Value> {
    let mut redis = Redis::connect(address)?;
    let before = used_memory(&mut redis)?;
    fill(&mut redis, people)?;
    let memory = used_memory(&mut redis)? - before;
    let members: Vec<[u8; 36]> = (0..people).map(member).collect();
    let mut places = waiting(people);
    let ours = millis(|| of_everyone(&places))?;
    let asked = millis(|| by_rank(&mut redis, &members))?;
    let listed = millis(|| by_range(&mut redis, people))?;
    let (front, redis_front) = without(&mut places, &mut redis, 0)?;
    let (middle, redis_middle) = without(&mut places, &mut redis, people / 2)?;
    // Milliseconds for a million are nanoseconds for one.
    let millions = f64::from(people) / 1e6;
    Ok(json!({
        "rank_ns": ours / millions,
        "redis_zrank_ns": asked / millions,
        "redis_zrange_ns": listed / millions,
        "front_left_ms": front,
        "redis_front_left_ms": redis_front,
        "middle_left_ms": middle,
        "redis_middle_left_ms": redis_middle,
        "redis_memory_mb": memory as f64 / 1e6,
    }))
}

fn fill(redis: &mut Redis, people: u32) -> anyhow::Result<()> {
    for first in (0..people).step_by(BATCH) {
        join(redis, first..people.min(first + BATCH as u32))?;
    }
    Ok(())
}

fn join(redis: &mut Redis, numbers: Range<u32>) -> anyhow::Result<()> {
    let joins = numbers.end - numbers.start;
    add_to_line(redis, numbers)?;
    redis.send()?;
    added_to_line(redis, joins)
}

fn of_everyone(places: &Places) -> anyhow::Result<()> {
    let sum = places.iter().map(|ticket| u64::from(places.rank(ticket))).sum();
    is_of_everyone(black_box(sum), u64::from(places.len()))
}

/// One ZRANK for each, in batches of which one is answered while the next is under way.
fn by_rank(redis: &mut Redis, members: &[[u8; 36]]) -> anyhow::Result<()> {
    let (mut sum, mut unanswered) = (0, 0);
    for batch in members.chunks(BATCH) {
        for member in batch {
            redis.add(&[b"ZRANK", SET, member])?;
        }
        redis.send()?;
        sum += added_up(redis, unanswered)?;
        unanswered = batch.len();
    }
    sum += added_up(redis, unanswered)?;
    is_of_everyone(sum, members.len() as u64)
}

fn added_up(redis: &mut Redis, answers: usize) -> anyhow::Result<u64> {
    (0..answers).map(|_| redis.integer()).sum()
}

/// One ZRANGE of all, counted here. That the client must still find whom each id belongs to is left
/// out: our set needs no such look-up.
fn by_range(redis: &mut Redis, people: u32) -> anyhow::Result<()> {
    redis.add(&[b"ZRANGE", SET, b"0", b"-1"])?;
    redis.send()?;
    let (mut sum, mut rank) = (0, 0);
    let len = redis.list(|member| {
        black_box(member);
        sum += rank;
        rank += 1;
    })?;
    ensure!(len == u64::from(people), "{len} of {people} are in line");
    is_of_everyone(sum, len)
}

/// Milliseconds until one has gone and the ranks of all others are known, in both; for Redis by
/// ZRANGE. Whoever went is put back.
fn without(places: &mut Places, redis: &mut Redis, number: u32) -> anyhow::Result<(f64, f64)> {
    let others = places.len() - 1;
    let ours = millis(|| {
        ensure!(places.remove(Ticket(number)), "somebody does not wait");
        of_everyone(places)
    })?;
    places.insert(Ticket(number));
    let theirs = millis(|| {
        redis.add(&[b"ZREM", SET, &member(number)])?;
        redis.send()?;
        ensure!(redis.integer()? == 1, "somebody does not wait");
        by_range(redis, others)
    })?;
    join(redis, number..number + 1)?;
    Ok((ours, theirs))
}

/// The ranks of so many people are the numbers below that.
fn is_of_everyone(sum: u64, people: u64) -> anyhow::Result<()> {
    ensure!(sum == people * (people - 1) / 2, "the ranks are wrong");
    Ok(())
}

fn millis(what: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    what()?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

fn used_memory(redis: &mut Redis) -> anyhow::Result<u64> {
    redis.add(&[b"INFO", b"memory"])?;
    redis.send()?;
    let info = str::from_utf8(redis.bulk()?)?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    Ok(used.context("Redis does not say what memory it uses")?.parse()?)
}
