//! The only file that knows sled. It writes behind the feed, on a thread of its own, and what it
//! kept is believed only after every value was checked.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock;
use crate::projection::checkpoint::{self, Checkpoint, HeadRow, Kept, PageRef, Restored};
use crate::projection::fold::Fold;
use crate::projection::key;
use crate::queue::event::At;

/// Sled's page cache: a checkpoint touches few pages, so little is enough.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// For how long sled may keep its lock after it was closed, and how often is looked.
const SLED_LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const SLED_LOCK_ASK_EVERY: Duration = Duration::from_millis(5);

/// Pages in one batch: sled keeps a whole batch in memory, many times over.
const PAGES_PER_BATCH: usize = 32;

/// Pages that are encoded while those before them are written: a few megabytes.
const PAGES_AT_ONCE: usize = 256;

/// Why a store can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Another process has it open.
    #[error("another process has the store open")]
    Held,
    /// There is no checkpoint in it.
    #[error("there is no checkpoint")]
    Empty,
    /// Something is wrong with it.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The disk can't be used.
    #[error("the store's folder can't be used: {0}")]
    Disk(#[from] std::io::Error),
}

/// What opening a store gave.
pub(super) struct Opened {
    /// The store, to write to.
    pub(super) store: Store,
    /// The line that it kept.
    pub(super) restored: Option<Restored>,
    /// What was wrong with what it kept, which is now moved aside.
    pub(super) damage: Option<String>,
}

/// What the writing thread is handed.
enum Part {
    /// Pages of a checkpoint that is to come, as they are after this entry.
    Pages(u64, Vec<(u32, Vec<u8>)>),
    /// A checkpoint, with the pages that were not handed over yet.
    Checkpoint(Box<Checkpoint>),
}

/// A handle to the writing thread.
pub(super) struct Store {
    to_thread: mpsc::SyncSender<Part>,
    thread: JoinHandle<()>,
    failed: Arc<OnceLock<String>>,
}

impl Store {
    /// Reads what the folder holds and starts the writing thread. What can't be believed is moved
    /// aside, and the folder begins anew.
    pub(super) fn open(dir: &Path) -> Result<Opened, StoreError> {
        let lock = lock(dir)?;
        let opened = guarded(|| {
            let (db, pages, restored) = open_and_read(dir)?;
            sweep(&db, &pages)?;
            Ok((db, pages, restored))
        });
        let (db, pages, restored, damage) = match opened {
            Ok((db, pages, restored)) => (db, pages, restored, None),
            Err(StoreError::Damaged(why)) => {
                quarantine(dir)?;
                (open_new(dir)?, Vec::new(), None, Some(why))
            }
            Err(other) => return Err(other),
        };
        Ok(Opened { store: Self::start(lock, db, pages)?, restored, damage })
    }

    /// Moves what the folder holds aside and begins with an empty store.
    pub(super) fn begin_anew(dir: &Path) -> Result<Self, StoreError> {
        let lock = lock(dir)?;
        quarantine(dir)?;
        Self::start(lock, open_new(dir)?, Vec::new())
    }

    /// Begins with an empty store where there was no room: what is there makes room for it.
    pub(super) fn begin_anew_in_its_room(dir: &Path) -> Result<Self, StoreError> {
        let lock = lock(dir)?;
        for old in [dir.to_owned(), beside(dir, ".damaged")] {
            remove(&old)?;
        }
        Self::start(lock, open_new(dir)?, Vec::new())
    }

    fn start(lock: File, db: sled::Db, pages: Vec<PageRef>) -> Result<Self, StoreError> {
        // One checkpoint waits while one is written; the projector merges further ones itself.
        let (to_thread, parts) = mpsc::sync_channel(1);
        let failed = Arc::new(OnceLock::new());
        let failure = Arc::clone(&failed);
        let mut writer = Writer { db, pages, replaced: Vec::new() };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            for part in parts {
                let written = catch_unwind(AssertUnwindSafe(|| writer.write(part)));
                let why = match written {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "sled panicked".to_owned(),
                };
                failure.get_or_init(|| why);
                break;
            }
            // The database is closed before anybody else may open it.
            drop(writer);
            drop(lock);
        })?;
        Ok(Self { to_thread, thread, failed })
    }

    /// Hands a checkpoint to the writing thread; false when it is still busy with those before.
    pub(super) fn try_write(&self, checkpoint: Checkpoint) -> bool {
        self.to_thread.try_send(Part::Checkpoint(Box::new(checkpoint))).is_ok()
    }

    /// Why the writing thread has stopped, if it has.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Writes all that is not kept of a fold that does not move meanwhile, page by page. Blocks.
    pub(super) fn write(&self, fold: &Fold, stream: At) {
        let seq = fold.line().seq().0;
        for pages in fold.changed_pages().chunks(PAGES_AT_ONCE) {
            let sealed = checkpoint::seal_pages(fold.line(), pages);
            // When the thread has stopped, its failure says why.
            let _ = self.to_thread.send(Part::Pages(seq, sealed));
        }
        let _ = self.to_thread.send(Part::Checkpoint(Box::new(fold.head(stream))));
    }

    /// Closes the store. Blocks until everything is written.
    pub(super) fn close(self) -> Result<(), String> {
        drop(self.to_thread);
        let ended = self.thread.join();
        match self.failed.get() {
            Some(why) => Err(why.clone()),
            None => ended.map_err(|_| "the writing thread panicked".to_owned()),
        }
    }
}

/// The line that a store keeps, whole and checked, when nobody else has it open. Changes nothing.
pub(super) fn read(dir: &Path) -> Result<Restored, StoreError> {
    if !dir.exists() {
        return Err(StoreError::Empty);
    }
    let _lock = lock(dir)?;
    let (_, _, restored) = guarded(|| open_and_read(dir))?;
    restored.ok_or(StoreError::Empty)
}

/// Runs something of sled's that may panic on damaged files.
fn guarded<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(StoreError::Damaged("sled panicked".to_owned())))
}

/// A lock of our own beside the folder: sled has one as well, but tells of it as of any other error,
/// and a store that somebody else has open must not be taken for a damaged one.
fn lock(dir: &Path) -> Result<File, StoreError> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let file = File::create(beside(dir, ".lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Held),
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Moves a store aside, in the place of one that was moved aside before.
fn quarantine(dir: &Path) -> Result<(), std::io::Error> {
    let aside = beside(dir, ".damaged");
    remove(&aside)?;
    match std::fs::rename(dir, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(dir: &Path) -> Result<(), std::io::Error> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn beside(dir: &Path, ending: &str) -> PathBuf {
    let mut beside = PathBuf::from(dir);
    beside.as_mut_os_string().push(ending);
    beside
}

/// Opens the database. Sled lets go of its own lock only a moment after it was closed in this process;
/// ours, which is held here, says that nobody else has it.
fn open_db(dir: &Path) -> Result<sled::Db, sled::Error> {
    let until = clock::monotonic() + SLED_LOCK_WAIT_MAX;
    loop {
        // Only an explicit flush counts, so sled need not flush by itself.
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        match config.open() {
            Err(error) if is_locked(&error) && clock::monotonic() < until => {
                std::thread::sleep(SLED_LOCK_ASK_EVERY);
            }
            opened => return opened,
        }
    }
}

fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

fn open_new(dir: &Path) -> Result<sled::Db, StoreError> {
    let opened = guarded(|| open_db(dir).map_err(damaged));
    // Nothing was there that could be damaged: it is the disk.
    opened.map_err(|error| StoreError::Disk(std::io::Error::other(error)))
}

fn damaged(error: sled::Error) -> StoreError {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, StorageFull};
    match error {
        // The disk's trouble says nothing of what is on it.
        sled::Error::Io(error)
            if matches!(error.kind(), StorageFull | QuotaExceeded | PermissionDenied) =>
        {
            StoreError::Disk(error)
        }
        error @ (sled::Error::Io(_)
        | sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. }) => StoreError::Damaged(error.to_string()),
    }
}

type Found = (sled::Db, Vec<PageRef>, Option<Restored>);

/// Reads and checks everything that belongs to the checkpoint, and makes it into a line again.
fn open_and_read(dir: &Path) -> Result<Found, StoreError> {
    let db = open_db(dir).map_err(damaged)?;
    let sealed = db.get(key::CHECKPOINT).map_err(damaged)?;
    let head = sealed.map(|sealed| checkpoint::open_head(&sealed)).transpose();
    let head = head.map_err(StoreError::Damaged)?;
    let pages = head.as_ref().map_or_else(Vec::new, |head| head.pages.clone());
    let restored = head.map(|head| restore(&db, head)).transpose()?;
    Ok((db, pages, restored))
}

/// Removes the pages that belong to no checkpoint: what one left that came to no end.
fn sweep(db: &sled::Db, pages: &[PageRef]) -> Result<(), StoreError> {
    for entry in db.scan_prefix(key::PAGES).keys() {
        let found = entry.map_err(damaged)?;
        let belongs = |(number, page): (u32, &PageRef)| found == key::page(number, page.seq);
        let number = found.get(1..5).and_then(|bytes| bytes.try_into().ok());
        let number = number.map(u32::from_be_bytes).unwrap_or(u32::MAX);
        let page = usize::try_from(number).ok().and_then(|index| pages.get(index));
        if !page.is_some_and(|page| belongs((number, page))) {
            db.remove(found).map_err(damaged)?;
        }
    }
    Ok(())
}

fn restore(db: &sled::Db, mut head: HeadRow) -> Result<Restored, StoreError> {
    let mut failed = None;
    let pages = (0..).zip(std::mem::take(&mut head.pages)).map_while(|(number, page)| {
        let read = read_page(db, number, page);
        read.map_err(|error| failed = Some(error)).ok()
    });
    let restored = head.restore(pages.flatten());
    match failed {
        Some(error) => Err(error),
        None => {
            restored.ok_or_else(|| StoreError::Damaged("its parts don't fit together".to_owned()))
        }
    }
}

fn read_page(db: &sled::Db, number: u32, page: PageRef) -> Result<Vec<Kept>, StoreError> {
    let sealed = db.get(key::page(number, page.seq)).map_err(damaged)?;
    let sealed = sealed.filter(|sealed| key::sum_of(sealed) == Some(page.sum));
    let opened = sealed.and_then(|sealed| checkpoint::open_page(&sealed));
    opened.ok_or_else(|| StoreError::Damaged(format!("page {number}")))
}

/// What the writing thread has.
struct Writer {
    db: sled::Db,
    /// The pages of the checkpoint that counts, or of the one that is being written.
    pages: Vec<PageRef>,
    /// Those that count no more as soon as that one is: number and entry.
    replaced: Vec<(u32, u64)>,
}

impl Writer {
    fn write(&mut self, part: Part) -> Result<(), sled::Error> {
        let checkpoint = match part {
            Part::Pages(seq, pages) => return self.write_pages(seq, &pages),
            Part::Checkpoint(checkpoint) => checkpoint,
        };
        self.write_pages(checkpoint.head.seq.0, &checkpoint.pages)?;
        // The pages are on disk before anything names them.
        self.db.flush()?;
        self.db.insert(key::CHECKPOINT, checkpoint::seal_head(&checkpoint, &self.pages))?;
        self.db.flush()?;
        for (number, old) in self.replaced.drain(..) {
            self.db.remove(key::page(number, old))?;
        }
        Ok(())
    }

    fn write_pages(&mut self, seq: u64, pages: &[(u32, Vec<u8>)]) -> Result<(), sled::Error> {
        for batch_of in pages.chunks(PAGES_PER_BATCH) {
            let mut batch = sled::Batch::default();
            for (number, sealed) in batch_of {
                batch.insert(key::page(*number, seq).as_slice(), sealed.as_slice());
                let page = PageRef { seq, sum: key::sum_of(sealed).unwrap_or_default() };
                match self.pages.get_mut(*number as usize) {
                    Some(old) if old.seq != seq => {
                        self.replaced.push((*number, std::mem::replace(old, page).seq));
                    }
                    Some(same) => *same = page,
                    None => self.pages.push(page),
                }
            }
            self.db.apply_batch(batch)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::Decoded;
    use crate::log::subjects::QueueId;
    use crate::queue::digest::digest;
    use crate::queue::event::{
        Admitted, Configured, Decision, Disconnected, Entry, Facts, Join, Joined, Jti, Left, Level,
        Millis, NodeId, Reconnected, Redeemed, Return, SecretId, Seq, Setting, State, VisitorId,
        WorkerId,
    };
    use crate::queue::policy::Policy;

    /// A store of its own, gone when it is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("anteroom-store-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name).join("demo"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
        }
    }

    fn visitor(number: u16) -> VisitorId {
        let [high, low] = number.to_be_bytes();
        VisitorId([high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    }

    fn apply(fold: &mut Fold, entry: Entry) {
        let seq = Seq(fold.line().seq().0 + 1);
        let stored = At(i64::try_from(seq.0).unwrap() * 1_000_000_000);
        let chain = fold.chain().then(seq, stored, "subject", b"payload");
        fold.apply(&Decoded { seq, stored, chain, written: entry.into() }).unwrap();
    }

    const NODE: NodeId = NodeId([9; 16]);

    fn joined(numbers: std::ops::Range<u16>) -> Entry {
        let join =
            |number| Join { opened: 1, lane: 2, ..Join::plain(visitor(number), u64::from(number)) };
        Entry::Joined(Joined { node: NODE, visitors: numbers.map(join).collect() })
    }

    fn back(numbers: std::ops::Range<u16>, hand: u32) -> Entry {
        let back = |number| Return {
            opened: 3,
            hand,
            ..Return::plain(visitor(number), 1_000 + u64::from(number))
        };
        let visitors = numbers.map(back).collect();
        Entry::Reconnected(Reconnected { node: NODE, basis: None, visitors })
    }

    fn gone(numbers: std::ops::Range<u16>) -> Entry {
        let visitors = numbers.map(|number| (visitor(number), u64::from(number)));
        Entry::Disconnected(Disconnected { node: NODE, visitors: visitors.collect() })
    }

    fn left(numbers: &[u16]) -> Entry {
        let left = |number: &u16| Left { visitor: visitor(*number), hand: 0 };
        Entry::Left(numbers.iter().map(left).collect())
    }

    fn set(what: Setting) -> Facts {
        Facts::Configured(vec![Configured { by: "ops".to_owned(), what }])
    }

    fn decided(fold: &mut Fold, facts: Facts) {
        let (prev, basis) = (fold.line().last_decision(), fold.line().seq());
        let now = Millis((fold.line().seq().0 + 1) * 1_000 + 5_000);
        let worker = WorkerId([8; 16]);
        apply(fold, Entry::Decided(Decision { prev, basis, now, worker, facts }));
    }

    /// A line of three pages in which everything has happened to somebody.
    fn fold() -> Fold {
        let mut fold = Fold::new(QueueId::parse("demo").unwrap(), Level::NEWEST);
        decided(&mut fold, set(Setting::State(State::Open, Some("welcome".to_owned()))));
        decided(&mut fold, set(Setting::Secret(SecretId([4; 16]))));
        apply(&mut fold, joined(0..700));
        apply(&mut fold, gone(300..400));
        apply(&mut fold, back(350..360, 0));
        apply(&mut fold, back(360..362, 1));
        apply(&mut fold, left(&[1, 699]));
        let shorter = Policy { reconnect_seconds: 10, ..Policy::default() };
        decided(&mut fold, set(Setting::Policy(shorter)));
        let grant = |number| Admitted {
            visitor: visitor(number),
            jti: Jti([7; 16]),
            kid: "k1".to_owned(),
            seconds: 120,
        };
        decided(&mut fold, Facts::Admitted(vec![grant(0), grant(2), grant(3)]));
        let used = |number, key| Redeemed {
            visitor: visitor(number),
            jti: Jti([7; 16]),
            kid: "k2".to_owned(),
            seconds: 1_800,
            key,
        };
        decided(&mut fold, Facts::Redeemed(vec![used(0, Some([5; 32])), used(2, None)]));
        decided(&mut fold, Facts::Expired(vec![visitor(300)]));
        fold
    }

    #[test]
    fn a_line_comes_back_from_its_store_and_goes_on_as_if_nothing_had_happened() {
        let folder = Folder::new("back");
        let mut fold = fold();
        let Opened { store, restored, damage } = Store::open(&folder.0).unwrap();
        assert!(restored.is_none() && damage.is_none());
        store.write(&fold, At(1));
        store.close().unwrap();

        let restored = read(&folder.0).unwrap();
        assert_eq!(restored.stream, At(1));
        let queue = QueueId::parse("demo").unwrap();
        let mut again = Fold::restored(queue, Level::NEWEST, restored);
        assert!(!again.is_ahead());
        for fold in [&mut fold, &mut again] {
            apply(fold, joined(700..800));
            apply(fold, left(&[2, 3, 600]));
        }
        assert_eq!(digest(again.line()), digest(fold.line()));
        assert_eq!((again.chain(), again.last()), (fold.chain(), fold.last()));
        // Only what moved is written again.
        assert_eq!(again.changed_pages(), [0, 2, 3]);
    }

    #[test]
    fn a_page_of_an_earlier_checkpoint_is_not_taken_for_one_of_this() {
        let folder = Folder::new("older");
        let mut fold = fold();
        let Opened { store, .. } = Store::open(&folder.0).unwrap();
        assert!(matches!(Store::open(&folder.0), Err(StoreError::Held)));
        store.write(&fold, At(1));
        fold.kept();
        let older = checkpoint::seal_pages(fold.line(), &[1]).remove(0).1;
        apply(&mut fold, left(&[400]));
        // One is written and one may wait.
        while !store.try_write(fold.checkpoint(At(1))) {}
        store.close().unwrap();
        assert_eq!(digest(&read(&folder.0).unwrap().line), digest(fold.line()));

        // The older page, good in itself, under the newer one's key.
        let db = open_db(&folder.0).unwrap();
        assert_eq!(db.scan_prefix(key::PAGES).count(), 3, "what was replaced is gone");
        db.insert(key::page(1, fold.line().seq().0), older).unwrap();
        drop(db);
        assert!(matches!(read(&folder.0), Err(StoreError::Damaged(_))));
        let Opened { store, restored, damage } = Store::open(&folder.0).unwrap();
        assert_eq!((restored.is_none(), damage.as_deref()), (true, Some("page 1")));
        store.close().unwrap();
        assert!(matches!(read(&folder.0), Err(StoreError::Empty)));
    }

    #[test]
    fn pages_of_a_checkpoint_that_came_to_no_end_are_swept_away() {
        let folder = Folder::new("swept");
        let mut fold = fold();
        let Opened { store, .. } = Store::open(&folder.0).unwrap();
        store.write(&fold, At(1));
        fold.kept();
        let kept = digest(fold.line());
        apply(&mut fold, left(&[400]));
        let sealed = checkpoint::seal_pages(fold.line(), &[1]);
        store.to_thread.send(Part::Pages(fold.line().seq().0, sealed)).unwrap();
        store.close().unwrap();
        let Opened { store, restored, damage } = Store::open(&folder.0).unwrap();
        assert!(damage.is_none());
        assert_eq!(digest(&restored.unwrap().line), kept);
        store.close().unwrap();
        assert_eq!(open_db(&folder.0).unwrap().scan_prefix(key::PAGES).count(), 3);
    }
}
