//! Any bytes as a message of the feed: no panic, no allocation beyond what the bytes can hold, and
//! what is read is written and read again as the same.

#![no_main]

use anteroom::wire::feed::{SnapshotPart, from_gaps, read, read_frame, read_snapshot, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(frame) = read_frame(data) {
        for delta in &frame.deltas {
            let _ = from_gaps(&delta.entered).chain(from_gaps(&delta.missed)).count();
        }
        assert_eq!(read_frame(&write(&frame)).expect("a frame"), frame);
    }
    if let Ok(snapshot) = read_snapshot(data) {
        assert_eq!(read_snapshot(&write(&snapshot)).expect("a snapshot"), snapshot);
    }
    if let Ok(part) = read::<SnapshotPart>(data) {
        assert_eq!(read::<SnapshotPart>(&write(&part)).expect("a part"), part);
    }
});
