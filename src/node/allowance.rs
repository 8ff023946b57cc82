//! How much a visitor may say: more than any client has to say, and less than is a burden.

/// Frames that a socket may send within one window. A client says JOIN, and answers a ping every
/// some fifteen seconds.
const FRAMES_MAX: u16 = 64;
/// The window.
const WINDOW_MILLIS: u32 = 10_000;

/// What a socket has said lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    began: u32,
    frames: u16,
}

impl Allowance {
    /// Notes one more frame at this time, in milliseconds since any instant; false when it is one
    /// too many.
    pub(super) fn spend(&mut self, now: u32) -> bool {
        if now.wrapping_sub(self.began) >= WINDOW_MILLIS {
            *self = Self { began: now, frames: 0 };
        }
        self.frames = self.frames.saturating_add(1);
        self.frames <= FRAMES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_over_soon_and_a_steady_client_never() {
        let mut steady = Allowance::default();
        assert!((0..1_000).all(|second| steady.spend(second * 1_000)));
        let mut flood = Allowance::default();
        assert_eq!((0..1_000).filter(|_| flood.spend(5)).count(), usize::from(FRAMES_MAX));
        assert!(flood.spend(10_005));
    }
}
