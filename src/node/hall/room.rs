//! Room for values under numbers that are given out again.
//!
//! It is taken at once for as many as there may ever be: as address space, of which the system backs
//! only what is used. So nothing moves or is copied when a crowd comes, and what stays does not lie
//! scattered among what was needed only while they came.

/// Values under numbers.
pub(super) struct Room<T> {
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Room<T> {
    /// Room for so many; more find room too, at some cost.
    pub(super) fn new(values: usize) -> Self {
        Self { values: Vec::with_capacity(values), free: Vec::new() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.values.len() - self.free.len()
    }

    /// Puts a value under a number that is free, the one that became so last.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop()
            && let Some(place) = self.place(number)
        {
            *place = Some(value);
            return number;
        }
        self.values.push(Some(value));
        // There are no more of anything than descriptors in a process.
        u32::try_from(self.values.len() - 1).unwrap_or(u32::MAX)
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.place(number)?.take()?;
        self.free.push(number);
        Some(value)
    }

    /// The value under a number.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.values.get(usize::try_from(number).ok()?)?.as_ref()
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.place(number)?.as_mut()
    }

    /// All values.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter().flatten()
    }

    /// All values, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut().flatten()
    }

    fn place(&mut self, number: u32) -> Option<&mut Option<T>> {
        self.values.get_mut(usize::try_from(number).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_and_no_more_room_is_taken() {
        let mut room = Room::new(1_000);
        let numbers: Vec<u32> = (0..1_000).map(|value| room.insert(value)).collect();
        assert_eq!(numbers, (0..1_000).collect::<Vec<u32>>());
        for number in (0..1_000).step_by(3) {
            assert_eq!(room.remove(number), Some(number));
            assert_eq!(room.remove(number), None);
        }
        assert_eq!((room.len(), room.get(3), room.get(4)), (666, None, Some(&4)));
        for round in 0..1_000_000 {
            let number = room.insert(round);
            assert!(number < 1_000);
            assert_eq!(room.get_mut(number), Some(&mut { round }));
            room.remove(number);
        }
        assert_eq!((room.len(), room.iter().count(), room.values.len()), (666, 666, 1_000));
    }
}
