//! Any bytes of a socket, in any pieces: no panic, no more kept than one frame and one message, and the
//! same said, however the bytes are cut.

#![no_main]

use anteroom::wire::frame::{Broken, FRAME_BYTES_MAX, Inbound, MESSAGE_BYTES_MAX, Said};
use libfuzzer_sys::fuzz_target;

/// The sizes of the pieces, in turn; 0 is all that is left.
const PIECES: usize = 8;

fuzz_target!(|data: &[u8]| {
    let Some((pieces, bytes)) = data.split_first_chunk::<PIECES>() else { return };
    assert_eq!(heard(bytes, pieces), heard(bytes, &[0]));
});

fn heard(mut bytes: &[u8], pieces: &[u8]) -> (Vec<Said>, Option<Broken>) {
    let (mut inbound, mut heard) = (Inbound::default(), Vec::new());
    for piece in pieces.iter().cycle() {
        let length = if *piece == 0 { bytes.len() } else { bytes.len().min(usize::from(*piece)) };
        let (piece, rest) = bytes.split_at(length);
        inbound.put(piece);
        loop {
            match inbound.next_said() {
                Ok(Some(said)) => heard.push(said),
                Ok(None) => break,
                Err(broken) => return (heard, Some(broken)),
            }
        }
        assert!(inbound.kept() <= FRAME_BYTES_MAX + MESSAGE_BYTES_MAX);
        if rest.is_empty() {
            break;
        }
        bytes = rest;
    }
    (heard, None)
}
