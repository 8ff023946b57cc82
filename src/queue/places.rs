//! A set of tickets that knows how many come before a given one.
//!
//! Tickets are dense, so the set is a bitmap. Counts stand in front of every 512 bits (one cache
//! line) and every 32,768 bits, so that a rank reads two counts and at most eight words, and a
//! change touches at most 64 small counts and one large count per 32,768 tickets behind it.

#![expect(clippy::indexing_slicing, reason = "every index is derived from a ticket below capacity")]

use crate::queue::event::Ticket;

const WORD_BITS: usize = 64;
const BLOCK_WORDS: usize = 8;
const GROUP_BLOCKS: usize = 64;
const GROUP_WORDS: usize = BLOCK_WORDS * GROUP_BLOCKS;

/// A set of tickets with rank in a few nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    words: Vec<u64>,
    /// Members of the same group before each block.
    blocks: Vec<u16>,
    /// Members before each group.
    groups: Vec<u32>,
    len: u32,
}

impl Places {
    /// How many tickets are in the set.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the ticket is in the set.
    pub fn contains(&self, ticket: Ticket) -> bool {
        let (word, bit) = split(ticket);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Adds a ticket; false when it was there already.
    pub fn insert(&mut self, ticket: Ticket) -> bool {
        let (word, bit) = split(ticket);
        self.grow(word);
        if self.words[word] & bit != 0 {
            return false;
        }
        self.words[word] |= bit;
        self.len += 1;
        let (rest, groups) = self.counts_behind(word);
        rest.iter_mut().for_each(|count| *count += 1);
        groups.iter_mut().for_each(|count| *count += 1);
        true
    }

    /// Takes a ticket out; false when it was not there.
    pub fn remove(&mut self, ticket: Ticket) -> bool {
        if !self.contains(ticket) {
            return false;
        }
        let (word, bit) = split(ticket);
        self.words[word] &= !bit;
        self.len -= 1;
        let (rest, groups) = self.counts_behind(word);
        rest.iter_mut().for_each(|count| *count -= 1);
        groups.iter_mut().for_each(|count| *count -= 1);
        true
    }

    /// How many members are before this ticket, be it a member or not.
    pub fn rank(&self, ticket: Ticket) -> u32 {
        let (word, bit) = split(ticket);
        if word >= self.words.len() {
            return self.len;
        }
        let block = word / BLOCK_WORDS;
        let whole: u32 =
            self.words[block * BLOCK_WORDS..word].iter().map(|word| word.count_ones()).sum();
        self.groups[word / GROUP_WORDS]
            + u32::from(self.blocks[block])
            + whole
            + (self.words[word] & (bit - 1)).count_ones()
    }

    /// The members in ascending order. Empty stretches cost one comparison per 32,768 tickets.
    pub fn iter(&self) -> impl Iterator<Item = Ticket> + '_ {
        let occupied = (0..self.groups.len()).filter(|&group| {
            let end = self.groups.get(group + 1).copied().unwrap_or(self.len);
            self.groups[group] != end
        });
        occupied
            .flat_map(|group| {
                let end = (group + 1) * GROUP_WORDS;
                group * GROUP_WORDS..end.min(self.words.len())
            })
            .flat_map(|word| Bits(self.words[word]).map(move |bit| join(word, bit)))
    }

    /// The bitmap, 64 tickets a word, the lowest ticket in the lowest bit.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The set that has this bitmap.
    pub fn from_words(words: Vec<u64>) -> Self {
        let mut places = Self::default();
        if let Some(last) = words.len().checked_sub(1) {
            places.grow(last);
        }
        let mut in_group: u16 = 0;
        for (index, &word) in words.iter().enumerate() {
            if index % GROUP_WORDS == 0 {
                places.groups[index / GROUP_WORDS] = places.len;
                in_group = 0;
            }
            if index % BLOCK_WORDS == 0 {
                places.blocks[index / BLOCK_WORDS] = in_group;
            }
            places.words[index] = word;
            places.len += word.count_ones();
            in_group += low_16(word.count_ones());
        }
        for block in words.len().div_ceil(BLOCK_WORDS)..places.blocks.len() {
            places.blocks[block] = in_group;
        }
        places
    }

    /// Room for this word: whole groups, so that the counts never need a special case at the end.
    fn grow(&mut self, word: usize) {
        let groups = word / GROUP_WORDS + 1;
        if groups > self.groups.len() {
            self.words.resize(groups * GROUP_WORDS, 0);
            self.blocks.resize(groups * GROUP_BLOCKS, 0);
            self.groups.resize(groups, self.len);
        }
    }

    /// The counts that a change in this word changes: later blocks of its group, later groups.
    fn counts_behind(&mut self, word: usize) -> (&mut [u16], &mut [u32]) {
        let group = word / GROUP_WORDS;
        let next_block = word / BLOCK_WORDS + 1;
        (&mut self.blocks[next_block..(group + 1) * GROUP_BLOCKS], &mut self.groups[group + 1..])
    }
}

/// The set bits of a word, lowest first.
struct Bits(u64);

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

fn split(ticket: Ticket) -> (usize, u64) {
    (ticket.0 as usize / WORD_BITS, 1 << (ticket.0 % 64))
}

#[expect(clippy::cast_possible_truncation, reason = "words come from 32-bit tickets")]
fn join(word: usize, bit: u32) -> Ticket {
    Ticket((word * WORD_BITS) as u32 + bit)
}

#[expect(clippy::cast_possible_truncation, reason = "a word has at most 64 ones")]
fn low_16(ones: u32) -> u16 {
    ones as u16
}
