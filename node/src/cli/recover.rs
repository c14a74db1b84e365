//! `recover`: the steps after validators with a third of the power or more are lost for good. See `docs/runbooks/mass-loss.md`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::genesis::{read_key_report, set_owner};
use super::output::OutputArgs;
use super::owner_key;
use super::termination::CliError;
use crate::configuration::{Configuration, LoadedGenesis};
use crate::recovery::{self, Applied, CheckedRestart, Draft, Report, RestartDocument};

/// Restart a chain that has lost a third of its power for good. Every step is a person's; none needs a running node.
#[derive(Subcommand, Clone, Debug)]
pub enum RecoverCommand {
    /// Report what a stopped survivor knows. Reads only.
    Report(ReportArgs),
    /// Make the document of a restart from the reports of all survivors.
    Draft(DraftArgs),
    /// Show a document, check everything it says of itself, and weigh its signatures by a survivor's report.
    Show(ShowArgs),
    /// Sign a document with the key of an owner.
    Sign(SignArgs),
    /// Put the signatures of several copies of one document together.
    Join(JoinArgs),
    /// Apply a signed document to a stopped node: a survivor's volume, or a new one.
    Apply(ApplyArgs),
}

/// Arguments of `recover report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// The node's configuration.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Where to write the report.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `recover draft`.
#[derive(Args, Clone, Debug)]
pub struct DraftArgs {
    /// Reports of all survivors.
    #[arg(required = true, value_name = "REPORT")]
    pub reports: Vec<PathBuf>,
    /// The chain's genesis.
    #[arg(long, value_name = "FILE")]
    pub genesis: PathBuf,
    /// A validator of the new set: the key report of its node (`init-key`), named after it, and its power.
    #[arg(long = "validator", required = true, value_name = "NAME.json:POWER")]
    pub validators: Vec<String>,
    /// The owner of a validator; without one, that of the lost set's validator of the same name.
    #[arg(long = "owner", value_name = "NAME:ADDRESS")]
    pub owners: Vec<String>,
    /// Go on although blocks above the best one may have been final. Every owner signs this with the document.
    #[arg(long)]
    pub may_lose_finality: bool,
    /// Where to write the document.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `recover show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// The document.
    #[arg(long, value_name = "FILE")]
    pub document: PathBuf,
    /// The chain's genesis.
    #[arg(long, value_name = "FILE")]
    pub genesis: PathBuf,
    /// A survivor's report, for the power of the owners that have signed.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `recover sign`.
#[derive(Args, Clone, Debug)]
pub struct SignArgs {
    /// The document; the signature is added to it.
    #[arg(long, value_name = "FILE")]
    pub document: PathBuf,
    /// The chain's genesis.
    #[arg(long, value_name = "FILE")]
    pub genesis: PathBuf,
    /// The owner's key.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The document's hash, as its owners have agreed on it, read out to each other; nothing else is signed.
    #[arg(long, value_name = "HASH")]
    pub hash: String,
}

/// Arguments of `recover join`.
#[derive(Args, Clone, Debug)]
pub struct JoinArgs {
    /// Copies of one document, each with signatures.
    #[arg(required = true, value_name = "DOCUMENT")]
    pub documents: Vec<PathBuf>,
    /// The chain's genesis.
    #[arg(long, value_name = "FILE")]
    pub genesis: PathBuf,
    /// Where to write the document with all of them.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `recover apply`.
#[derive(Args, Clone, Debug)]
pub struct ApplyArgs {
    /// The document, signed by owners of more than two thirds of the power.
    #[arg(long, value_name = "FILE")]
    pub document: PathBuf,
    /// The node's configuration.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    hash: String,
    number: u64,
    height: u64,
    block_hash: String,
    epoch: u64,
    may_lose_finality: bool,
    validators: Vec<ShownValidator>,
    /// Owners that have signed.
    signers: Vec<String>,
    /// Their power, and that of all, by a report.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_power: Option<(u64, u64)>,
    /// Power of those that reported, and of all, where it is drafted.
    #[serde(skip_serializing_if = "Option::is_none")]
    reporting_power: Option<(u64, u64)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownValidator {
    name: String,
    owner: String,
    public_key: String,
    power: u64,
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    fs::read(path).map_err(|error| CliError::Failed(format!("cannot read {}: {error}", path.display())))
}

fn read_report(path: &Path) -> Result<Report, CliError> {
    let wrong = |error| CliError::Failed(format!("{} is no report of `recover report`: {error}", path.display()));
    serde_json::from_slice(&read(path)?).map_err(wrong)
}

fn read_document(path: &Path) -> Result<RestartDocument, CliError> {
    let wrong = |error| CliError::Failed(format!("{}: {error}", path.display()));
    RestartDocument::parse(&read(path)?).map_err(wrong)
}

fn read_checked(path: &Path, genesis: &LoadedGenesis) -> Result<CheckedRestart, CliError> {
    let wrong = |error| CliError::Failed(format!("{}: {error}", path.display()));
    read_document(path)?.check(genesis).map_err(wrong)
}

/// Writes a file whole or not at all; an earlier one is replaced only if `replace`.
fn write(path: &Path, content: &[u8], replace: bool) -> Result<(), CliError> {
    let failed = |error| CliError::Failed(format!("cannot write {}: {error}", path.display()));
    if !replace && path.exists() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::AlreadyExists)));
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let aside = PathBuf::from(name);
    let options = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside);
    options
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&aside, path))
        .map_err(failed)
}

fn say(text: impl std::fmt::Display) -> Result<(), CliError> {
    writeln!(std::io::stdout(), "{text}").map_err(CliError::failed)
}

impl RecoverCommand {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        match self {
            Self::Report(arguments) => arguments.run(),
            Self::Draft(arguments) => arguments.run(),
            Self::Show(arguments) => arguments.run(),
            Self::Sign(arguments) => arguments.run(),
            Self::Join(arguments) => arguments.run(),
            Self::Apply(arguments) => arguments.run(),
        }
    }
}

impl ReportArgs {
    fn run(self) -> Result<(), CliError> {
        let configuration = Configuration::load(&self.config).map_err(CliError::stopped)?;
        let report = recovery::report(&configuration).map_err(CliError::stopped)?;
        let mut file = serde_json::to_vec_pretty(&report).map_err(CliError::failed)?;
        file.push(b'\n');
        write(&self.out, &file, false)?;
        say(format_args!(
            "{} vouches for height {}; final here is height {}. The report is in {}.",
            report.node_name,
            report.height,
            report.finalized_height,
            self.out.display()
        ))
    }
}

impl DraftArgs {
    fn run(self) -> Result<(), CliError> {
        let genesis = LoadedGenesis::load(&self.genesis).map_err(CliError::stopped)?;
        let reports = self.reports.iter().map(|path| read_report(path)).collect::<Result<Vec<_>, _>>()?;
        let mut validators = Vec::new();
        for text in &self.validators {
            let (report, mut validator) = read_key_report(text)?;
            if report.genesis_hash.is_some_and(|pinned| pinned != genesis.hash.to_string()) {
                return Err(CliError::Failed(format!("--validator {text}: its volume has pinned another genesis")));
            }
            let known = reports.iter().flat_map(|report| &report.validators).find(|known| known.name == validator.name);
            validator.owner = known.map(|known| known.owner.clone());
            validators.push(validator);
        }
        for text in &self.owners {
            set_owner(&mut validators, text)?;
        }
        let Draft { document, reporting, total } =
            recovery::draft(&reports, validators, self.may_lose_finality).map_err(CliError::failed)?;
        let checked = document.check(&genesis).map_err(CliError::failed)?;
        write(&self.out, &checked.document.to_file(), false)?;
        let shown = Shown { reporting_power: Some((reporting, total)), ..shown(&checked) };
        self.output.print(&shown, text)
    }
}

impl ShowArgs {
    fn run(self) -> Result<(), CliError> {
        let genesis = LoadedGenesis::load(&self.genesis).map_err(CliError::stopped)?;
        let checked = read_checked(&self.document, &genesis)?;
        let mut shown = shown(&checked);
        if let Some(report) = &self.report {
            let report = read_report(report)?;
            let power = |counts: &dyn Fn(&str) -> bool| {
                let counted = report.validators.iter().filter(|validator| counts(&validator.owner));
                counted.fold(0_u64, |sum, validator| sum.saturating_add(validator.power))
            };
            let signed = power(&|owner| shown.signers.iter().any(|signer| signer == owner));
            shown.signed_power = Some((signed, power(&|_| true)));
        }
        self.output.print(&shown, text)
    }
}

impl SignArgs {
    fn run(self) -> Result<(), CliError> {
        let genesis = LoadedGenesis::load(&self.genesis).map_err(CliError::stopped)?;
        let checked = read_checked(&self.document, &genesis)?;
        if self.hash != checked.hash.to_string() {
            let found = checked.hash;
            return Err(CliError::Failed(format!(
                "the document has hash {found}, not the one given: it is another one"
            )));
        }
        let key = owner_key::read(&self.key)?;
        let owner = owner_key::address(&key);
        write(&self.document, &checked.sign(&key).document.to_file(), true)?;
        say(format_args!("owner {owner} has signed document {}", self.hash))
    }
}

impl JoinArgs {
    fn run(self) -> Result<(), CliError> {
        let genesis = LoadedGenesis::load(&self.genesis).map_err(CliError::stopped)?;
        let mut joined: Option<CheckedRestart> = None;
        for path in &self.documents {
            let next = read_checked(path, &genesis)?;
            joined = Some(match joined {
                None => next,
                Some(joined) if joined.hash == next.hash => joined.join(next),
                Some(joined) => {
                    let (here, there) = (next.hash, joined.hash);
                    return Err(CliError::Failed(format!("{} is document {here}, not {there}", path.display())));
                }
            });
        }
        let Some(joined) = joined else { return Ok(()) };
        write(&self.out, &joined.document.to_file(), false)?;
        say(format_args!("{} owners have signed document {}", joined.document.signatures.len(), joined.hash))
    }
}

impl ApplyArgs {
    fn run(self) -> Result<(), CliError> {
        let configuration = Configuration::load(&self.config).map_err(CliError::stopped)?;
        let document = read_document(&self.document)?;
        let (number, epoch) = (document.number, document.epoch);
        let node = &configuration.node_name;
        match recovery::apply(&configuration, document).map_err(CliError::stopped)? {
            Applied::Confirmed => say(format_args!(
                "restart {number} is pinned, and right by the chain of {node}; with the next start it goes on in epoch {epoch}"
            )),
            Applied::Unconfirmed => say(format_args!(
                "restart {number} is pinned; {node} does not hold its last block, and will check signatures and state when it \
                 executes that, before it votes. If it joins at a later snapshot it trusts the document, as the genesis: \
                 compare the hash of `recover show` with the owners'"
            )),
            Applied::Signed => say(format_args!(
                "restart {number} was pinned before; the signatures of more owners are kept with it now"
            )),
            Applied::Before => say(format_args!("restart {number} was pinned before; nothing was to be done")),
        }
    }
}

fn shown(checked: &CheckedRestart) -> Shown {
    let document = &checked.document;
    let validator = |member: &crate::validator::Member| ShownValidator {
        name: member.name.clone(),
        owner: member.owner.to_string(),
        public_key: hex::encode(member.consensus_key),
        power: member.power,
    };
    Shown {
        hash: checked.hash.to_string(),
        number: document.number,
        height: document.height,
        block_hash: document.block_hash.clone(),
        epoch: document.epoch,
        may_lose_finality: document.may_lose_finality,
        validators: checked.ledger.members.iter().map(validator).collect(),
        signers: checked.ledger.signers.iter().map(ToString::to_string).collect(),
        signed_power: None,
        reporting_power: None,
    }
}

fn text(shown: &Shown) -> String {
    let mut lines = vec![
        format!(
            "restart {} after block {} at height {}, epoch {}",
            shown.number, shown.block_hash, shown.height, shown.epoch
        ),
        format!("document {}", shown.hash),
    ];
    let is_quorum = |part: u64, total: u64| 3 * u128::from(part) > 2 * u128::from(total);
    if let Some((reporting, total)) = shown.reporting_power {
        lines.push(format!("reported by validators with {reporting} of a power of {total}"));
        if is_quorum(reporting, total) {
            lines.push("THAT IS A QUORUM: start these nodes, and the chain goes on without a restart".to_owned());
        }
    }
    if shown.may_lose_finality {
        lines.push("IT MAY LOSE FINALITY: blocks above this height may have been final".to_owned());
    }
    for ShownValidator { name, owner, public_key, power } in &shown.validators {
        lines.push(format!("validator {name}  power {power}\n  owner {owner}\n  key   {public_key}"));
    }
    lines.extend(shown.signers.iter().map(|signer| format!("signed by {signer}")));
    if let Some((signed, total)) = shown.signed_power {
        let enough = if is_quorum(signed, total) { "enough" } else { "not enough: more than two thirds must sign" };
        lines.push(format!("signed by owners of {signed} of a power of {total}: {enough}"));
    }
    lines.join("\n")
}
