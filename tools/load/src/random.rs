//! Random bits for keys, masks and jitter: fast, and different in every process.

/// A generator (xorshift64*).
pub struct Random(u64);

impl Random {
    /// Seeded by the system.
    pub fn new() -> Result<Self, getrandom::Error> {
        // Zero alone would stay zero.
        Ok(Self(getrandom::u64()? | 1))
    }

    /// 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 128 bits.
    pub fn next_u128(&mut self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }

    /// What a client's frame is masked with.
    pub fn mask(&mut self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.next_u64().to_be_bytes();
        [a, b, c, d]
    }

    /// Anything below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit.max(1)
    }
}
