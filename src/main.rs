//! The switchboard.

fn main() {}
