//! Any bytes on any subject of the log: no panic; what is read as an entry is written and read again
//! as the same; and both readings, the live fold and the audit's, come to the same state.

#![no_main]

use anteroom::audit::verify::verify_records;
use anteroom::log::subjects::QueueId;
use anteroom::log::record::Record;
use anteroom::queue::digest::{digest, hex};
use anteroom::queue::event::{At, Level, Seq};
use anteroom::queue::line::Line;
use anteroom::wire::event::{Read, read, write};
use libfuzzer_sys::fuzz_target;

const SUBJECTS: [&str; 13] = [
    "node.joined",
    "node.reconnected",
    "node.disconnected",
    "node.left",
    "admission.configured",
    "admission.admitted",
    "admission.redeemed",
    "admission.released",
    "admission.expired",
    "admission.removed",
    "admission.node_lost",
    "admission.joined",
    "",
];

fuzz_target!(|data: &[u8]| {
    let Some((which, payload)) = data.split_first() else { return };
    let subject = SUBJECTS[usize::from(*which) % SUBJECTS.len()];
    let Read::Entry(version, entry) = read(subject, payload, Level::NEWEST) else { return };
    let (_, kind, written) = write(&entry, version).expect("what was read can be written");
    assert!(subject.ends_with(kind));
    assert_eq!(read(subject, &written, Level::NEWEST), Read::Entry(version, entry.clone()));

    let queue = QueueId::parse("demo").expect("a name");
    let mut line = Line::default();
    let records = [1, 2].map(|seq| Record {
        seq: Seq(seq),
        stored: At(1_700_000_000_000_000_000 + i64::try_from(seq).unwrap_or(0)),
        subject: format!("anteroom.log.demo.{subject}"),
        payload: payload.to_vec().into(),
    });
    for record in &records {
        if line.raised_by(&entry).is_some_and(|level| level > Level::NEWEST) {
            break;
        }
        line.apply(record.seq, record.stored, &entry);
    }
    assert_eq!(verify_records(&queue, Level::NEWEST, &records).digest, hex(&digest(&line)));
});
