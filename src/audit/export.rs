//! A log as a file: one line of JSON an entry, for readers without a server. A payload stands in it
//! byte by byte, so that the chain can be computed from the file alone. It is never imported.
//!
//! | format | a line |
//! |---|---|
//! | `jsonl` | `{"seq":7,"time":"…Z","subject":"anteroom.log.demo.node.joined","data":{…}}` |
//! | `cloudevents` | a CloudEvent 1.0 in JSON, with the extension `sequence` |
//!
//! `data` is the payload as it is where that is one line of a JSON object; otherwise `data_base64`
//! has its bytes. With a name that ends in `.gz` the file is gzip, in members of some megabytes: after
//! an interruption, what is whole stays and the rest is written again.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read as _, Seek as _, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::bufread::{GzDecoder, MultiGzDecoder};
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::clock;
use crate::log::record::Record;
use crate::log::subjects::{self, QueueId};
use crate::queue::event::Seq;

/// Entries in one gzip member at most, and bytes of text after which it ends: little is written twice
/// after an interruption, and little is held in memory.
const MEMBER_ENTRIES: usize = 1_000;
const MEMBER_BYTES: usize = 4 * 1024 * 1024;
/// A line above this is no entry: a payload has at most 1 MiB, and base64 a third more.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object with the sequence, the store time, the subject and the payload.
    Jsonl,
    /// CloudEvents 1.0, JSON format.
    CloudEvents,
}

/// Why a file can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The disk.
    #[error("{0}")]
    Disk(#[from] std::io::Error),
    /// A line is no entry.
    #[error("line {line} is no entry of this queue's log: {why}")]
    Line {
        /// Which.
        line: u64,
        /// Why.
        why: String,
    },
    /// It is not what an export begins with.
    #[error("it is no export, and is not written over")]
    NoExport,
    /// A part of it is not what was written.
    #[error("it is damaged after byte {byte}, and is not gone on with")]
    Damaged {
        /// Where the damaged part begins.
        byte: u64,
    },
    /// It was begun in the other format.
    #[error("it was begun in another format")]
    OtherFormat,
}

/// Reads an export, of either format.
pub struct ExportReader {
    file: PathBuf,
    lines: Box<dyn BufRead + Send>,
    line: u64,
}

impl ExportReader {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, ExportError> {
        let mut file = BufReader::new(File::open(path)?);
        let is_gzip = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let lines: Box<dyn BufRead + Send> = if is_gzip {
            Box::new(BufReader::new(MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        Ok(Self { file: path.to_owned(), lines, line: 0 })
    }

    /// Which file it is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The next entry; `None` at the end.
    pub fn next(&mut self, queue: &QueueId) -> Result<Option<Record>, ExportError> {
        let Some(line) = read_line(&mut self.lines)? else { return Ok(None) };
        self.line += 1;
        let read = read_entry(&line, queue);
        let (_, record) = read.map_err(|why| ExportError::Line { line: self.line, why })?;
        Ok(Some(record))
    }
}

fn read_line(lines: &mut dyn BufRead) -> Result<Option<Vec<u8>>, std::io::Error> {
    let mut line = Vec::new();
    lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok((!line.is_empty()).then_some(line))
}

#[derive(Deserialize)]
struct EntryJson<'a> {
    seq: Option<u64>,
    specversion: Option<String>,
    sequence: Option<String>,
    time: String,
    subject: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

fn read_entry(line: &[u8], queue: &QueueId) -> Result<(Format, Record), String> {
    let entry: EntryJson<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let (format, seq) = match (&entry.specversion, entry.seq, &entry.sequence) {
        (Some(_), None, Some(sequence)) => (Format::CloudEvents, sequence.parse().ok()),
        (None, Some(seq), None) => (Format::Jsonl, Some(seq)),
        _ => return Err("it has no sequence".to_owned()),
    };
    let payload = match (entry.data, entry.data_base64) {
        (Some(data), None) => data.get().as_bytes().to_vec(),
        (None, Some(text)) => STANDARD.decode(text).map_err(|error| error.to_string())?,
        _ => return Err("it has no data, or twice".to_owned()),
    };
    if subjects::writer_and_kind(queue, &entry.subject).is_none() {
        return Err(format!("its subject is {}", entry.subject));
    }
    let record = Record {
        seq: Seq(seq.ok_or("its sequence is no number")?),
        stored: clock::parse_rfc3339(&entry.time).ok_or("its time is none")?,
        subject: entry.subject,
        payload: payload.into(),
    };
    Ok((format, record))
}

/// What of an export is in a file already.
pub struct Kept {
    /// Bytes that are whole entries; what follows them was cut off in the middle.
    bytes: u64,
    /// The last of these entries.
    pub last: Option<Record>,
}

/// Looks at a file that is to be gone on with, and changes nothing. One that is not there is empty;
/// one that is no export, or damaged anywhere but at its end, is an error.
pub fn look(path: &Path, queue: &QueueId, format: Format) -> Result<Kept, ExportError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Kept { bytes: 0, last: None });
        }
        Err(error) => return Err(error.into()),
    };
    let (bytes, last) =
        if is_gzip(path) { whole_members(&file, queue)? } else { whole_lines(&file, queue)? };
    if last.as_ref().is_some_and(|(begun, _)| *begun != format) {
        return Err(ExportError::OtherFormat);
    }
    Ok(Kept { bytes, last: last.map(|(_, record)| record) })
}

fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "gz")
}

/// Writes an export.
pub struct ExportWriter {
    queue: QueueId,
    format: Format,
    out: Out,
}

enum Out {
    Plain(BufWriter<File>),
    Gzip { file: File, member: Vec<u8>, entries: usize },
}

impl ExportWriter {
    /// Goes on with a file after what is kept of it.
    pub fn open(
        path: &Path,
        queue: &QueueId,
        format: Format,
        kept: &Kept,
    ) -> Result<Self, ExportError> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(false).open(path)?;
        file.set_len(kept.bytes)?;
        file.seek(std::io::SeekFrom::End(0))?;
        let out = if is_gzip(path) {
            Out::Gzip { file, member: Vec::new(), entries: 0 }
        } else {
            Out::Plain(BufWriter::new(file))
        };
        Ok(Self { queue: queue.clone(), format, out })
    }

    /// Writes the next entry.
    pub fn write(&mut self, record: &Record) -> Result<(), ExportError> {
        let line = write_entry(record, &self.queue, self.format);
        match &mut self.out {
            Out::Plain(file) => file.write_all(&line)?,
            Out::Gzip { file, member, entries } => {
                member.extend(line);
                *entries += 1;
                if *entries == MEMBER_ENTRIES || member.len() >= MEMBER_BYTES {
                    write_member(file, member)?;
                    *entries = 0;
                }
            }
        }
        Ok(())
    }

    /// Writes what is left, and comes back when it is on disk.
    pub fn finish(self) -> Result<(), ExportError> {
        let file = match self.out {
            Out::Plain(file) => file.into_inner().map_err(|error| error.into_error())?,
            Out::Gzip { mut file, mut member, .. } => {
                write_member(&mut file, &mut member)?;
                file
            }
        };
        Ok(file.sync_all()?)
    }
}

fn write_member(file: &mut File, member: &mut Vec<u8>) -> Result<(), std::io::Error> {
    if member.is_empty() {
        return Ok(());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(member)?;
    file.write_all(&encoder.finish()?)?;
    member.clear();
    Ok(())
}

type Whole = (u64, Option<(Format, Record)>);

/// How many bytes of a file are whole lines, and the entry in the last of them.
fn whole_lines(file: &File, queue: &QueueId) -> Result<Whole, ExportError> {
    let mut reader = BufReader::new(file);
    let mut check = Check::default();
    let mut bytes = 0;
    while let Some(line) = read_line(&mut reader)? {
        if !line.ends_with(b"\n") {
            // Cut off in the middle, if it is an export at all.
            return if bytes > 0 { Ok((bytes, check.last)) } else { Err(ExportError::NoExport) };
        }
        bytes += line.len() as u64;
        check.line(&line, queue)?;
    }
    Ok((bytes, check.last))
}

/// The same of gzip members.
fn whole_members(file: &File, queue: &QueueId) -> Result<Whole, ExportError> {
    let mut reader = BufReader::new(file);
    let mut check = Check::default();
    loop {
        let from = reader.stream_position()?;
        let mut member = Vec::new();
        let limit = MEMBER_BYTES as u64 + LINE_BYTES_MAX;
        if reader.fill_buf()?.is_empty() {
            return Ok((from, check.last));
        }
        match GzDecoder::new(&mut reader).take(limit).read_to_end(&mut member) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Ok((from, check.last));
            }
            Err(_) if from == 0 => return Err(ExportError::NoExport),
            Err(_) => return Err(ExportError::Damaged { byte: from }),
        }
        for line in member.split_inclusive(|byte| *byte == b'\n') {
            check.line(line, queue)?;
        }
    }
}

#[derive(Default)]
struct Check {
    lines: u64,
    last: Option<(Format, Record)>,
}

impl Check {
    fn line(&mut self, line: &[u8], queue: &QueueId) -> Result<(), ExportError> {
        self.lines += 1;
        let failed = |why: String| ExportError::Line { line: self.lines, why };
        let (format, record) = read_entry(line, queue).map_err(failed)?;
        let expected = self.last.as_ref().map_or(1, |(_, record)| record.seq.0 + 1);
        if record.seq.0 != expected {
            return Err(failed(format!("it is entry {}, not {expected}", record.seq.0)));
        }
        self.last = Some((format, record));
        Ok(())
    }
}

fn write_entry(record: &Record, queue: &QueueId, format: Format) -> Vec<u8> {
    let time = clock::rfc3339_nanos(record.stored);
    let mut head = match format {
        Format::Jsonl => {
            json!({"seq": record.seq.0, "time": time, "subject": record.subject})
        }
        Format::CloudEvents => json!({
            "specversion": "1.0",
            "id": record.seq.0.to_string(),
            "source": format!("/anteroom/queues/{queue}"),
            "type": format!("anteroom.{}", record.subject.rsplit('.').next().unwrap_or_default()),
            "subject": record.subject,
            "time": time,
            "sequence": format!("{:020}", record.seq.0),
            "datacontenttype": "application/json",
        }),
    }
    .to_string();
    // The object is closed by what follows.
    head.pop();
    let data = match verbatim(&record.payload) {
        Some(json) => format!(r#","data":{json}}}"#),
        None => format!(r#","data_base64":"{}"}}"#, STANDARD.encode(&record.payload)),
    };
    format!("{head}{data}\n").into_bytes()
}

/// A payload that may stand in a line as it is.
fn verbatim(payload: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(payload).ok()?;
    let one_line = text.starts_with('{') && text.ends_with('}') && !text.contains(['\n', '\r']);
    let is_json = one_line && serde_json::from_str::<&RawValue>(text).is_ok();
    is_json.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::event::At;

    fn record(seq: u64, payload: &[u8]) -> Record {
        let subject = "anteroom.log.demo.node.joined".to_owned();
        let payload = payload.to_vec().into();
        Record { seq: Seq(seq), stored: At(1_700_000_000_123_456_789), subject, payload }
    }

    fn records() -> Vec<Record> {
        let payloads: [&[u8]; 8] = [
            br#"{"v":1}"#,
            br#"{ "b" : 1.0 , "a":"\u00e9 \n" }"#,
            b"{\"a\":\n1}",
            b" {\"a\":1}",
            b"[1]",
            b"",
            b"\xff\x00",
            br#"{"a":1,"a":2}"#,
        ];
        let numbered = (1..).zip(payloads.iter().cycle());
        numbered.take(2 * MEMBER_ENTRIES + 5).map(|(seq, payload)| record(seq, payload)).collect()
    }

    fn read_all(file: &Path, queue: &QueueId) -> Vec<Record> {
        let mut reader = ExportReader::open(file).unwrap();
        std::iter::from_fn(|| reader.next(queue).unwrap()).collect()
    }

    #[test]
    fn every_byte_comes_back_and_what_was_cut_off_is_written_again() {
        let queue = QueueId::parse("demo").unwrap();
        let records = records();
        for (format, ending) in [
            (Format::Jsonl, "jsonl"),
            (Format::Jsonl, "jsonl.gz"),
            (Format::CloudEvents, "json"),
            (Format::CloudEvents, "json.gz"),
        ] {
            let name = format!("anteroom-export-{}.{ending}", std::process::id());
            let file = std::env::temp_dir().join(name);
            let write = |from: usize| {
                let kept = look(&file, &queue, format).unwrap();
                let mut writer = ExportWriter::open(&file, &queue, format, &kept).unwrap();
                let last = kept.last.map_or(0, |record| record.seq.0);
                let last = usize::try_from(last).unwrap();
                assert!(last >= from, "{last} of {from} are kept");
                for record in &records[last..] {
                    writer.write(record).unwrap();
                }
                writer.finish().unwrap();
            };
            write(0);
            assert_eq!(read_all(&file, &queue), records);
            let whole = std::fs::read(&file).unwrap();
            for cut in [1, 20, whole.len() / 2] {
                std::fs::write(&file, &whole[..whole.len() - cut]).unwrap();
                write(if cut == 1 { MEMBER_ENTRIES } else { 0 });
                assert_eq!(read_all(&file, &queue), records, "{ending}, without {cut} bytes");
            }
            let other = match format {
                Format::Jsonl => Format::CloudEvents,
                Format::CloudEvents => Format::Jsonl,
            };
            assert!(matches!(look(&file, &queue, other), Err(ExportError::OtherFormat)));
            let shop = QueueId::parse("shop").unwrap();
            assert!(matches!(look(&file, &shop, format), Err(ExportError::Line { line: 1, .. })));
            // What is damaged, or something else altogether, is left as it is.
            let mut damaged = whole.clone();
            damaged[if ending.ends_with("gz") { 40 } else { 0 }] ^= 0x10;
            for wrong in [damaged.as_slice(), b"a secret without an end of line"] {
                std::fs::write(&file, wrong).unwrap();
                assert!(look(&file, &queue, format).is_err(), "{ending}");
                assert_eq!(std::fs::read(&file).unwrap(), wrong);
            }
            std::fs::remove_file(&file).unwrap();
        }
    }
}
