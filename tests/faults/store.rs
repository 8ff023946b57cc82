//! The projector's store is damaged in every way: what it tells is right all the same, since the log
//! has everything.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::by_hand::{opened, seated};
use crate::projector::{Folder, Projector, truth};
use crate::row::{row, times};
use crate::world::{World, put};

/// Visitors in one entry.
const VISITORS: usize = 1_000;
/// A checkpoint is written each second.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(1_200);
/// What the keys of a store begin with: of the checkpoint, and of the first page of places, after
/// whose number the entry stands up to which it is.
const CHECKPOINT: &[u8] = b"c";
const FIRST_PAGE: &[u8] = b"p\0\0\0\0";
const CHECKSUM_BYTES: usize = 8;

#[tokio::test]
async fn a_damaged_store_is_noticed_or_harmless_and_never_believed() {
    let stores = Stores::new().await;
    stores.survive("sled folder deleted", |store| {
        std::fs::remove_dir_all(store).unwrap();
        "deleted".to_owned()
    });
    stores.survive("a bit flipped in the sled folder", |store| {
        let (file, bytes) = some_file(store);
        let (at, bit) = (below(bytes.len()), below(8));
        let mut bytes = bytes;
        bytes[at] ^= 1 << bit;
        std::fs::write(&file, &bytes).unwrap();
        format!("bit {bit} of byte {at} of {}", file.display())
    });
    stores.survive("a file of the sled folder truncated", |store| {
        let (file, bytes) = some_file(store);
        let length = below(bytes.len());
        std::fs::write(&file, &bytes[..length]).unwrap();
        format!("{} of {} bytes of {} left", length, bytes.len(), file.display())
    });
    stores.survive("garbage in the place of sled's snapshot", |store| {
        let snapshots: Vec<PathBuf> = files(store)
            .into_iter()
            .filter(|file| file.to_string_lossy().contains("snap."))
            .collect();
        assert_eq!(snapshots.len(), 1, "{snapshots:?}");
        let length = std::fs::metadata(&snapshots[0]).unwrap().len();
        std::fs::write(&snapshots[0], garbage(usize::try_from(length).unwrap())).unwrap();
        format!("{length} bytes of {}", snapshots[0].display())
    });
    stores.survive("garbage in the place of the checkpoint", |store| {
        change(store, CHECKPOINT, |value| garbage(value.len()));
        "the checkpoint".to_owned()
    });
    stores.survive("a sled store of an older format", |store| {
        change(store, CHECKPOINT, |value| {
            let mut older = value[CHECKSUM_BYTES..].to_vec();
            // The first field: two bytes, the lower one first.
            assert_ne!(older[0], 0);
            older[0] -= 1;
            let checksum = Sha256::digest(&older);
            [&checksum[..CHECKSUM_BYTES], &older].concat()
        });
        "a version before".to_owned()
    });
}

#[tokio::test]
async fn a_page_of_an_earlier_checkpoint_is_not_believed() {
    let stores = Stores::new().await;
    let all_noticed = stores.survive("an older page in the place of a newer one", |store| {
        change(store, FIRST_PAGE, |_| stores.older_page.clone());
        "the first page".to_owned()
    });
    assert!(all_noticed);
}

/// Whole stores of one queue, from which each repetition takes a copy.
struct Stores {
    world: World,
    folder: Folder,
    /// Left by a projector that was killed, and by one that stopped in order.
    whole: [PathBuf; 2],
    /// Their checkpoint.
    seq: u64,
    older_page: Vec<u8>,
    truth: Value,
}

impl Stores {
    async fn new() -> Self {
        let world = World::new().await;
        let folder = Folder::new("store");
        let (node, admission) = (world.raw("node").await, world.raw("admission").await);
        put(&admission, "admission.configured", &[], opened(0)).await;
        for thousand in 0..3 {
            put(&node, "node.joined", &[], seated(thousand * VISITORS, VISITORS)).await;
        }
        let earlier = folder.0.join("earlier");
        keep_store(&world, &folder, 4, &earlier, Projector::kill);
        let older_page = read(&earlier, FIRST_PAGE);

        put(&node, "node.disconnected", &[], seated(0, 100)).await;
        let mut seq = put(&node, "node.joined", &[], seated(3 * VISITORS, VISITORS)).await;
        let killed = folder.0.join("killed");
        keep_store(&world, &folder, seq, &killed, Projector::kill);
        assert_ne!(older_page, read(&killed, FIRST_PAGE));
        seq = put(&node, "node.reconnected", &[], seated(50, 100)).await;
        let stopped = folder.0.join("stopped");
        keep_store(&world, &folder, seq, &stopped, Projector::stop);

        // What no store has yet is folded on top of it.
        put(&node, "node.joined", &[], seated(4 * VISITORS, VISITORS)).await;
        let truth = truth(&world.nats, &world.stored().await);
        Self { world, folder, whole: [killed, stopped], seq, older_page, truth }
    }

    /// Damages a store, starts a projector on it, and hears the truth; again and again. Whether each
    /// damage was noticed.
    fn survive(&self, fault: &str, damage: impl Fn(&Path) -> String) -> bool {
        let repetitions = times(2, 40);
        let (mut noticed, mut empty, mut harmless) = (0, 0, 0);
        let mut worst = Duration::ZERO;
        let dir = self.folder.0.join("projection");
        for repetition in 0..repetitions {
            let _ = std::fs::remove_dir_all(&dir);
            copy(&self.whole[repetition % 2], &dir.join("demo"));
            let damaged = damage(&dir.join("demo"));
            let started = Instant::now();
            let mut projector = Projector::start(&self.world.nats, &dir, &[]);
            assert_eq!(projector.verify(), self.truth, "{fault}: {damaged}");
            worst = worst.max(started.elapsed());
            let aside = dir.join("demo.damaged").exists();
            assert_eq!(aside, projector.said("moved aside; rebuilding"), "{fault}: {damaged}");
            match (aside, projector.began_with()) {
                (true, 0) => noticed += 1,
                (false, 0) => empty += 1,
                (false, from) if from <= self.seq => harmless += 1,
                other => panic!("{fault}: {damaged}: {other:?}"),
            }
            projector.kill();
        }
        // What was written in its place is whole again.
        let again = self.folder.0.join("again");
        keep_store(
            &self.world,
            &self.folder,
            self.truth["sequence"].as_u64().unwrap(),
            &again,
            Projector::kill,
        );
        std::fs::remove_dir_all(again).unwrap();
        let result = format!(
            "every answer right: {noticed} noticed, moved aside and rebuilt, {empty} found empty and \
             rebuilt, {harmless} harmless; answered within {} ms",
            worst.as_millis()
        );
        row(fault, repetitions, &result);
        noticed == repetitions
    }
}

/// Runs a projector until its checkpoint is at this entry, ends it, and takes a copy of its store.
fn keep_store(world: &World, folder: &Folder, seq: u64, copied_to: &Path, end: fn(Projector)) {
    let dir = folder.0.join("projection");
    for _ in 0..20 {
        let mut projector = Projector::start(&world.nats, &dir, &[]);
        assert_eq!(projector.verify()["sequence"], seq);
        if projector.began_with() == seq {
            end(projector);
            return copy(&dir.join("demo"), copied_to);
        }
        std::thread::sleep(CHECKPOINT_WAIT);
        projector.kill();
    }
    panic!("the checkpoint does not come to entry {seq}");
}

fn read(store: &Path, prefix: &[u8]) -> Vec<u8> {
    let copied = store.with_extension("read");
    copy(store, &copied);
    let value = newest(&sled::open(&copied).unwrap(), prefix).1.to_vec();
    std::fs::remove_dir_all(copied).unwrap();
    value
}

fn change(store: &Path, prefix: &[u8], change: impl Fn(&[u8]) -> Vec<u8>) {
    let db = sled::open(store).unwrap();
    let (key, value) = newest(&db, prefix);
    db.insert(key, change(&value)).unwrap();
    db.flush().unwrap();
}

/// The newest of what begins so.
fn newest(db: &sled::Db, prefix: &[u8]) -> (sled::IVec, sled::IVec) {
    db.scan_prefix(prefix).last().unwrap().unwrap()
}

/// A file of the store that is not empty, and its bytes.
fn some_file(store: &Path) -> (PathBuf, Vec<u8>) {
    let files = files(store);
    let file = files[below(files.len())].clone();
    let bytes = std::fs::read(&file).unwrap();
    (file, bytes)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if std::fs::metadata(&path).unwrap().len() > 0 {
            found.push(path);
        }
    }
    found
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

fn garbage(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// A random number below this one.
fn below(end: usize) -> usize {
    usize::try_from(getrandom::u64().unwrap() % end as u64).unwrap()
}
