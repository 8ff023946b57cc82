//! Values under numbers that are given out again: a list that neither moves nor copies what is in it
//! when it grows, and is never half empty.

/// Values in a page.
const PAGE: usize = 32;

/// Values under numbers.
pub(super) struct Paged<T> {
    pages: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    used: usize,
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), free: Vec::new(), used: 0 }
    }
}

impl<T> Paged<T> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Puts a value under a number that is free.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        if let Some(number) = self.free.pop()
            && let Some(place) = self.place(number)
        {
            *place = Some(value);
            return number;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let before = (self.pages.len() - 1) * PAGE;
        let Some(page) = self.pages.last_mut() else { return 0 };
        page.push(Some(value));
        // There are no more of anything than descriptors in a process.
        u32::try_from(before + page.len() - 1).unwrap_or(u32::MAX)
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.place(number)?.take()?;
        self.used -= 1;
        self.free.push(number);
        Some(value)
    }

    /// The value under a number.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let number = usize::try_from(number).ok()?;
        self.pages.get(number / PAGE)?.get(number % PAGE)?.as_ref()
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.place(number)?.as_mut()
    }

    fn place(&mut self, number: u32) -> Option<&mut Option<T>> {
        let number = usize::try_from(number).ok()?;
        self.pages.get_mut(number / PAGE)?.get_mut(number % PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_and_values_stay_where_they_are() {
        let mut paged = Paged::default();
        let numbers: Vec<u32> = (0..1_000).map(|value| paged.insert(value)).collect();
        assert_eq!(numbers, (0..1_000).collect::<Vec<u32>>());
        for number in (0..1_000).step_by(3) {
            assert_eq!(paged.remove(number), Some(number));
            assert_eq!(paged.remove(number), None);
        }
        assert_eq!((paged.len(), paged.get(3), paged.get(4)), (666, None, Some(&4)));
        for round in 0..1_000_000 {
            let number = paged.insert(round);
            assert!(number < 1_000);
            assert_eq!(paged.get_mut(number), Some(&mut { round }));
            paged.remove(number);
        }
        assert_eq!((paged.len(), paged.pages.len()), (666, 32));
    }
}
