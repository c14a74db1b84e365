//! Flipped bytes in every kind of file of a stopped validator. Whatever the byte, `bizra-node verify` or the node itself
//! refuses, or everything reads as before.
//!
//! One more outcome is told apart: a flip near the end of a log cannot be told from a write that was torn by a crash, so
//! the end is dropped and the database is a whole, consistent, earlier one. Peers bring the rest; votes are in the signing
//! record, not there.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bizra_node::identity::SignerFolder;

use crate::campaign::Campaign;
use crate::database::{Content, RawDatabase};
use crate::kills::VOTING;
use crate::layout::{Layout, NodeFiles, create_folder};
use crate::node::Node;
use crate::record::Remembered;
use crate::scene::Scene;
use crate::{FaultError, VALIDATORS};

/// Restarts before the flips: each turns the log into table and blob files.
const RESTARTS: usize = 3;

/// Load between two restarts.
const LOAD: Duration = Duration::from_millis(1_500);

/// A node alone has refused, or serves, by then, and a check is done.
const ANSWER: Duration = Duration::from_secs(30);

/// Of a hundred flips in logs, so many hit the last bytes, where damage looks like a torn write, and so many the header of
/// a record, which says how the rest is to be read.
const TAIL_PERCENT: u64 = 35;
const TAIL_BYTES: u64 = 4_096;
const HEADER_PERCENT: u64 = 35;

/// A log is blocks of this size, in which each record has a header of so many bytes: CRC, length, type.
const LOG_BLOCK_BYTES: usize = 32 * 1024;
const LOG_HEADER_BYTES: usize = 7;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Table,
    Blob,
    Log,
    Manifest,
    Current,
    Options,
    Identity,
    Record,
    ConsensusKey,
    TlsKey,
    Genesis,
    Volume,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Table,
        Self::Blob,
        Self::Log,
        Self::Manifest,
        Self::Current,
        Self::Options,
        Self::Identity,
        Self::Record,
        Self::ConsensusKey,
        Self::TlsKey,
        Self::Genesis,
        Self::Volume,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Table => "table (SST)",
            Self::Blob => "blob",
            Self::Log => "log (WAL)",
            Self::Manifest => "MANIFEST",
            Self::Current => "CURRENT",
            Self::Options => "OPTIONS",
            Self::Identity => "IDENTITY",
            Self::Record => "signing record",
            Self::ConsensusKey => "consensus key",
            Self::TlsKey => "TLS key",
            Self::Genesis => "pinned genesis",
            Self::Volume => "volume id",
        }
    }

    /// The kind of a file of a data folder; none for logs of words and the like.
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let folder = path.parent()?.file_name()?.to_str()?;
        let stem_is_number = path.file_stem()?.to_str()?.bytes().all(|byte| byte.is_ascii_digit());
        let ending = path.extension().and_then(std::ffi::OsStr::to_str);
        match (folder, name) {
            ("database", "CURRENT") => Some(Self::Current),
            ("database", "IDENTITY") => Some(Self::Identity),
            ("database", name) if name.starts_with("MANIFEST-") => Some(Self::Manifest),
            ("database", name) if name.starts_with("OPTIONS-") => Some(Self::Options),
            ("database", _) if stem_is_number && ending == Some("sst") => Some(Self::Table),
            ("database", _) if stem_is_number && ending == Some("blob") => Some(Self::Blob),
            ("database", _) if stem_is_number && ending == Some("log") => Some(Self::Log),
            ("signer", "record") => Some(Self::Record),
            ("signer", "consensus.key") => Some(Self::ConsensusKey),
            ("signer", "tls.key") => Some(Self::TlsKey),
            ("signer", "genesis") => Some(Self::Genesis),
            ("signer", "volume") => Some(Self::Volume),
            _ => None,
        }
    }

    fn is_database(self) -> bool {
        self <= Self::Identity
    }
}

/// What became of the flips in one kind of file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) refused: u64,
    pub(crate) same: u64,
    /// Neither check nor start met it; whoever reads that block is refused.
    pub(crate) late: u64,
    pub(crate) rolled_back: u64,
    pub(crate) silent: u64,
}

impl Count {
    pub(crate) fn total(&self) -> u64 {
        self.refused + self.late + self.same + self.rolled_back + self.silent
    }
}

/// What the part found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flips {
    pub(crate) kinds: BTreeMap<Kind, Count>,
}

/// What a program did with the files.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// It verified them, or serves.
    Accepts,
    /// It says that something is wrong, and what.
    Refuses(String),
    /// Neither, for a long time.
    Hangs,
    /// It crashes.
    Dies,
}

enum Outcome {
    Refused,
    Same,
    Late,
    RolledBack,
    Silent(String),
}

/// A stopped validator and what it held before anything was flipped.
struct Subject {
    layout: Layout,
    /// The validator whose files are flipped.
    files: NodeFiles,
    /// The same validator with a copy of its folder.
    copy: NodeFiles,
    content: Content,
    remembered: Remembered,
}

/// Flips so many bytes, spread over all kinds of files.
pub(crate) fn run(count: u64, campaign: &mut Campaign) -> Result<Flips, FaultError> {
    let root = campaign.options.work.join("flips");
    create_folder(&root)?;
    campaign.leftovers.folder(&root)?;
    let subject = prepare(&root, campaign)?;
    let mut flips = Flips::default();
    let files = files(&subject.files.configuration.data_dir)?;
    for kind in Kind::ALL {
        if files.get(&kind).is_none_or(Vec::is_empty) {
            campaign.found(format!("there is no file of kind {} to flip a byte of", kind.name()));
        }
    }
    for number in 0..count {
        let kind = Kind::ALL[number as usize % Kind::ALL.len()];
        let Some(path) = files.get(&kind).and_then(|paths| {
            let position = campaign.random.below(paths.len() as u64);
            paths.get(position as usize)
        }) else {
            continue;
        };
        campaign.pause(Duration::ZERO)?;
        let flip = Flip::draw(path, kind, campaign)?;
        flip.apply()?;
        let outcome = judge(&subject, kind, path, campaign);
        // Undone first, whatever came out.
        flip.apply()?;
        let outcomes = flips.kinds.entry(kind).or_default();
        match outcome? {
            Outcome::Refused => outcomes.refused += 1,
            Outcome::Same => outcomes.same += 1,
            Outcome::Late => outcomes.late += 1,
            Outcome::RolledBack => outcomes.rolled_back += 1,
            Outcome::Silent(what) => {
                outcomes.silent += 1;
                campaign.found(format!("{} at byte {}: {what}", flip.path.display(), flip.offset));
            }
        }
        if (number + 1) % 40 == 0 || number + 1 == count {
            println!("  {} flips", number + 1);
        }
    }
    Ok(flips)
}

/// Runs a network until every kind of file is there, and stops it.
fn prepare(root: &Path, campaign: &mut Campaign) -> Result<Subject, FaultError> {
    let data: Vec<PathBuf> = (0..VALIDATORS).map(|index| root.join(format!("v{index}"))).collect();
    for folder in &data {
        create_folder(folder)?;
    }
    let mut scene = Scene::start(root, &data, campaign.options.rate, campaign)?;
    for _ in 0..RESTARTS {
        campaign.pause(LOAD)?;
        for node in &mut scene.nodes {
            node.kill();
        }
        let (fence, restarted) = (scene.watcher.highest(), Instant::now());
        for node in &mut scene.nodes {
            node.start(&mut campaign.leftovers)?;
        }
        for node in 0..VALIDATORS {
            scene.wait_until_voting(node, restarted, fence, VOTING, campaign)?.map_err(FaultError::Setup)?;
        }
    }
    campaign.pause(LOAD)?;
    // Not killed: the end of a log that was torn is not for `verify` to call sound.
    for node in &mut scene.nodes {
        if !node.stop() {
            return Err(FaultError::Setup(format!("{} did not stop", node.name())));
        }
    }
    let layout = scene.layout.clone();
    drop(scene);
    let files = layout.nodes[0].clone();
    let mut configuration = files.configuration.clone();
    configuration.data_dir = root.join("copy");
    configuration.node_name.clone_from(&files.configuration.node_name);
    let copies = root.join("copy-files");
    create_folder(&copies)?;
    let copy = NodeFiles::write(&copies, configuration)?;
    let content = RawDatabase::open(&files.database()).and_then(|database| database.content())?;
    let remembered = Remembered::read(&files.record())?;
    let subject = Subject { layout, files, copy, content, remembered };
    // A check that refuses a sound folder would refuse every flip too.
    for answer in [verify(&subject, campaign)?, start(&subject, campaign)?] {
        if answer != Answer::Accepts {
            return Err(FaultError::Setup(format!("before anything was flipped: {answer:?}")));
        }
    }
    Ok(subject)
}

fn files(data: &Path) -> Result<BTreeMap<Kind, Vec<PathBuf>>, FaultError> {
    let mut files = BTreeMap::<Kind, Vec<PathBuf>>::new();
    for folder in ["database", "signer"].map(|name| data.join(name)) {
        let failed = |error| FaultError::Io(folder.display().to_string(), error);
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let holds_something = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0);
            if let Some(kind) = Kind::of(&path).filter(|_| holds_something) {
                files.entry(kind).or_default().push(path);
            }
        }
    }
    // The order of a folder is no seed's.
    for paths in files.values_mut() {
        paths.sort();
    }
    Ok(files)
}

/// One flip; applied twice it is undone.
struct Flip {
    path: PathBuf,
    offset: u64,
    mask: u8,
}

impl Flip {
    fn draw(path: &Path, kind: Kind, campaign: &mut Campaign) -> Result<Self, FaultError> {
        let content = std::fs::read(path).map_err(|error| FaultError::Io(path.display().to_string(), error))?;
        let bytes = content.len() as u64;
        let random = &mut campaign.random;
        let is_log = matches!(kind, Kind::Log | Kind::Manifest);
        let offset = match random.below(100) {
            ..TAIL_PERCENT if is_log => {
                let from = bytes.saturating_sub(TAIL_BYTES);
                from + random.below(bytes - from)
            }
            chance if is_log && chance < TAIL_PERCENT + HEADER_PERCENT => {
                let headers = headers(&content);
                let header = headers.get(random.below(headers.len() as u64) as usize).copied().unwrap_or_default();
                header as u64 + random.below(LOG_HEADER_BYTES as u64)
            }
            _ => random.below(bytes),
        };
        // One bit as often as any other change.
        let mask = if random.percent(50) { 1 << random.below(8) } else { 1 + random.below(255) as u8 };
        Ok(Self { path: path.to_owned(), offset, mask })
    }

    fn apply(&self) -> Result<(), FaultError> {
        let failed = |error| FaultError::Io(self.path.display().to_string(), error);
        let file = OpenOptions::new().read(true).write(true).open(&self.path).map_err(failed)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.offset).map_err(failed)?;
        file.write_all_at(&[byte[0] ^ self.mask], self.offset).map_err(failed)
    }
}

/// Where the records of a sound log begin.
fn headers(log: &[u8]) -> Vec<usize> {
    let (mut headers, mut offset) = (Vec::new(), 0);
    while let Some(header) = log.get(offset..offset + LOG_HEADER_BYTES) {
        let rest = LOG_BLOCK_BYTES - offset % LOG_BLOCK_BYTES;
        if rest < LOG_HEADER_BYTES {
            offset += rest;
            continue;
        }
        headers.push(offset);
        offset += LOG_HEADER_BYTES + usize::from(u16::from_le_bytes([header[4], header[5]]));
    }
    headers
}

fn judge(subject: &Subject, kind: Kind, path: &Path, campaign: &mut Campaign) -> Result<Outcome, FaultError> {
    let silent = |what: &str| Ok(Outcome::Silent(what.to_owned()));
    if kind.is_database() {
        match verify(subject, campaign)? {
            Answer::Refuses(_) => return Ok(Outcome::Refused),
            Answer::Hangs => return silent("`bizra-node verify` does not end"),
            Answer::Dies => return silent("`bizra-node verify` crashes"),
            Answer::Accepts => {}
        }
        let content = RawDatabase::open(&subject.files.database()).and_then(|database| database.content());
        if content.as_ref().is_ok_and(|content| *content == subject.content) {
            return Ok(Outcome::Same);
        }
        match start(subject, campaign)? {
            Answer::Refuses(_) => return Ok(Outcome::Refused),
            Answer::Hangs => return silent("the node neither starts nor refuses"),
            Answer::Dies => return silent("the node crashes"),
            Answer::Accepts => {}
        }
        return match content {
            Err(_) => Ok(Outcome::Late),
            Ok(content) if content.last_height < subject.content.last_height => Ok(Outcome::RolledBack),
            Ok(_) => silent("verified and started with another content"),
        };
    }
    match start(subject, campaign)? {
        Answer::Refuses(_) => return Ok(Outcome::Refused),
        Answer::Hangs => return silent("the node neither starts nor refuses"),
        Answer::Dies => return silent("the node crashes"),
        Answer::Accepts => {}
    }
    let data_dir = &subject.files.configuration.data_dir;
    let signer = SignerFolder::open_unchecked(data_dir);
    let same = match kind {
        Kind::Record => {
            let remembered = Remembered::read(path)?;
            subject.remembered.votes.iter().all(|vote| remembered.covers(vote))
                && remembered.floor >= subject.remembered.floor
        }
        Kind::ConsensusKey => signer
            .and_then(|signer| signer.consensus_key())
            .is_ok_and(|key| subject.layout.keys.first() == Some(&key.public_key())),
        Kind::Genesis => signer
            .and_then(|signer| signer.pinned_genesis())
            .is_ok_and(|pinned| pinned == Some(subject.layout.genesis_hash)),
        Kind::Volume => std::fs::read_to_string(path).is_ok_and(|id| id == subject.files.configuration.volume_id),
        // Its certificate was accepted with it: the key is the one it was made for.
        _ => true,
    };
    if same { Ok(Outcome::Same) } else { silent("the node started with it, and it says something else") }
}

fn verify(subject: &Subject, campaign: &Campaign) -> Result<Answer, FaultError> {
    let failed = |error| FaultError::Io("bizra-node verify".to_owned(), error);
    let mut child = Command::new(&campaign.options.node)
        .args(["verify", "--data-dir"])
        .arg(&subject.files.configuration.data_dir)
        .arg("--genesis")
        .arg(&subject.layout.genesis_file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + ANSWER;
    loop {
        match child.try_wait().map_err(failed)? {
            Some(status) if status.success() => return Ok(Answer::Accepts),
            Some(status) if status.code().is_none() => return Ok(Answer::Dies),
            Some(status) => return Ok(Answer::Refuses(status.to_string())),
            None if Instant::now() > deadline => {
                child.kill().and_then(|()| child.wait()).map_err(failed)?;
                return Ok(Answer::Hangs);
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Starts the node on a copy of the folder, alone.
fn start(subject: &Subject, campaign: &mut Campaign) -> Result<Answer, FaultError> {
    let copy = &subject.copy.configuration.data_dir;
    let failed = |error| FaultError::Io(copy.display().to_string(), error);
    if copy.exists() {
        std::fs::remove_dir_all(copy).map_err(failed)?;
    }
    let from = &subject.files.configuration.data_dir;
    let copied = Command::new("cp").args(["--archive", "--reflink=auto"]).arg(from).arg(copy).status();
    if !copied.map_err(failed)?.success() {
        return Err(FaultError::Setup(format!("cannot copy to {}", copy.display())));
    }
    let mut node = Node::new(campaign.options.node.clone(), subject.copy.clone());
    node.start(&mut campaign.leftovers)?;
    let deadline = Instant::now() + ANSWER;
    while node.is_running() {
        // Not before its consensus takes turns: it opens the signing record while others answer already.
        if node.metric("bizra_consensus_turns_total").is_some_and(|turns| turns > 0.0) {
            return Ok(Answer::Accepts);
        }
        if Instant::now() > deadline {
            return Ok(Answer::Hangs);
        }
        campaign.pause(Duration::from_millis(20))?;
    }
    let why = node.termination().map(|why| format!("{}: {}", why.reason, why.message));
    Ok(why.map_or(Answer::Dies, Answer::Refuses))
}
