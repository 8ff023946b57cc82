//! As much of a Redis client as is measured: batches of commands, and the answers that these give.
//! It is written by hand since nothing shall stand between what is measured and the socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, bail, ensure};

/// Takes an answer of a batch of a thousand ranks, or much of a large one, with one `read`.
const READ_BUFFER_BYTES: usize = 256 * 1024;
/// What is told in one piece is an id or a page of INFO. More than this is something else.
const BULK_BYTES_MAX: usize = 1 << 20;

/// A connection. Commands are gathered and sent together; answers come in the same order.
pub(crate) struct Redis {
    from: BufReader<TcpStream>,
    batch: Vec<u8>,
    head: Vec<u8>,
    bulk: Vec<u8>,
}

impl Redis {
    /// Connects to `address`, as host:port.
    pub(crate) fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).context("Redis can't be reached")?;
        stream.set_nodelay(true)?;
        let from = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
        Ok(Self { from, batch: Vec::new(), head: Vec::new(), bulk: Vec::new() })
    }

    /// Puts a command into the next batch.
    pub(crate) fn add(&mut self, words: &[&[u8]]) -> anyhow::Result<()> {
        self.begin(words.len())?;
        words.iter().try_for_each(|word| self.word(word))
    }

    /// Begins a command in the next batch; so many words follow.
    pub(crate) fn begin(&mut self, words: usize) -> anyhow::Result<()> {
        Ok(write!(self.batch, "*{words}\r\n")?)
    }

    /// The next word of the command that was begun.
    pub(crate) fn word(&mut self, word: &[u8]) -> anyhow::Result<()> {
        write!(self.batch, "${}\r\n", word.len())?;
        self.batch.extend_from_slice(word);
        self.batch.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Sends the batch.
    pub(crate) fn send(&mut self) -> anyhow::Result<()> {
        self.from.get_mut().write_all(&self.batch)?;
        self.batch.clear();
        Ok(())
    }

    /// The answer to a command that counts or ranks.
    pub(crate) fn integer(&mut self) -> anyhow::Result<u64> {
        self.number_after(b':')
    }

    /// The answer to a command that lists: so many, of which each is looked at.
    pub(crate) fn list(&mut self, mut look: impl FnMut(&[u8])) -> anyhow::Result<u64> {
        let len = self.number_after(b'*')?;
        for _ in 0..len {
            look(self.bulk()?);
        }
        Ok(len)
    }

    /// The answer to a command that tells one thing.
    pub(crate) fn bulk(&mut self) -> anyhow::Result<&[u8]> {
        let len = usize::try_from(self.number_after(b'$')?)?;
        ensure!(len <= BULK_BYTES_MAX, "{len} bytes in one answer");
        self.bulk.resize(len + 2, 0);
        self.from.read_exact(&mut self.bulk)?;
        self.bulk.truncate(len);
        Ok(&self.bulk)
    }

    /// A line that begins with what tells its kind, and has a number.
    fn number_after(&mut self, kind: u8) -> anyhow::Result<u64> {
        self.head.clear();
        self.from.read_until(b'\n', &mut self.head)?;
        let head = str::from_utf8(&self.head)?.trim_end();
        match head.as_bytes().split_first() {
            Some((first, _)) if *first == kind => Ok(head[1..].parse()?),
            _ => bail!("Redis said {head:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_batch_is_sent_as_one_and_answers_are_of_the_kind_that_was_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut redis = Redis::connect(&listener.local_addr().unwrap().to_string()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        redis.add(&[b"ZRANK", b"queue", b"ann"]).unwrap();
        redis.add(&[b"PING"]).unwrap();
        redis.send().unwrap();
        let expected = b"*3\r\n$5\r\nZRANK\r\n$5\r\nqueue\r\n$3\r\nann\r\n*1\r\n$4\r\nPING\r\n";
        let mut sent = vec![0; expected.len()];
        server.read_exact(&mut sent).unwrap();
        assert_eq!(sent, expected);

        server.write_all(b":7\r\n*2\r\n$3\r\nann\r\n$0\r\n\r\n$4\r\ninfo\r\n-ERR no\r\n").unwrap();
        assert_eq!(redis.integer().unwrap(), 7);
        let mut listed = Vec::new();
        assert_eq!(redis.list(|one| listed.push(one.to_vec())).unwrap(), 2);
        assert_eq!(listed, [b"ann".to_vec(), Vec::new()]);
        assert_eq!(redis.bulk().unwrap(), b"info");
        assert!(redis.integer().unwrap_err().to_string().contains("ERR no"));
        drop(server);
        assert!(redis.integer().is_err());
    }
}
