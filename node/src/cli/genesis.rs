//! `genesis`: composes a genesis file from key reports, without Kubernetes.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bizra_proto::ceremony::{Genesis, GenesisAccount, GenesisValidator, KeyReport, genesis_hash};
use bizra_proto::parameters::Parameters;
use clap::Args;

use super::termination::CliError;

/// Compose a genesis file from the key reports of `init-key`.
#[derive(Args, Clone, Debug)]
pub struct GenesisCommand {
    /// Name of the chain: 1 to 32 of a-z, 0-9 and '-'.
    #[arg(long, value_name = "ID")]
    pub chain_id: String,
    /// A validator, named as its key report's file without the ending. May be repeated; the order gives the indices.
    #[arg(long = "validator", value_name = "REPORT.json:POWER", required = true)]
    pub validators: Vec<String>,
    /// An account with money: public key in hex and balance. May be repeated.
    #[arg(long = "account", value_name = "ADDRESS:BALANCE")]
    pub accounts: Vec<String>,
    /// Owner of a validator, who may change it on chain: its name and an account. May be repeated.
    #[arg(long = "owner", value_name = "NAME:ADDRESS")]
    pub owners: Vec<String>,
    /// Blocks of an epoch: a multiple of 16 between 32 and 1048576.
    #[arg(long, value_name = "COUNT", default_value_t = Parameters::default().epoch_blocks)]
    pub epoch_blocks: u64,
    /// Milliseconds since 1970 of the genesis block; now by default.
    #[arg(long, value_name = "MILLISECONDS")]
    pub time: Option<u64>,
    /// Where to write it; an existing file is not overwritten.
    #[arg(long, value_name = "FILE", default_value = "genesis.json")]
    pub out: PathBuf,
}

impl GenesisCommand {
    /// Runs the command and prints the hash that names the chain.
    pub fn run(self) -> Result<(), CliError> {
        let mut validators: Vec<GenesisValidator> =
            self.validators.iter().map(|text| read_validator(text)).collect::<Result<_, _>>()?;
        for text in &self.owners {
            set_owner(&mut validators, text)?;
        }
        let parameters = Parameters { epoch_blocks: self.epoch_blocks, ..Parameters::default() };
        let accounts = self.accounts.iter().map(|text| read_account(text)).collect::<Result<_, _>>()?;
        let time_milliseconds = self.time.unwrap_or_else(now_milliseconds);
        let genesis =
            Genesis { version: 1, chain_id: self.chain_id, time_milliseconds, validators, accounts, parameters };
        let hash = write_genesis(&genesis, &self.out)?;
        writeln!(std::io::stdout(), "{hash}  {}", self.out.display()).map_err(CliError::failed)
    }
}

/// Checks a genesis and writes it to a new file; returns its hash in hex.
pub(super) fn write_genesis(genesis: &Genesis, out: &Path) -> Result<String, CliError> {
    genesis.check().map_err(CliError::failed)?;
    let mut file = serde_json::to_vec_pretty(genesis).map_err(CliError::failed)?;
    file.push(b'\n');
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(out)
        .and_then(|mut target| target.write_all(&file).and_then(|()| target.sync_all()))
        .map_err(|error| CliError::Failed(format!("cannot write {}: {error}", out.display())))?;
    Ok(hex::encode(genesis_hash(&file)))
}

/// Milliseconds since 1970; a clock before that counts as 1970.
pub(super) fn now_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The validator of a key report.
pub(super) fn validator(name: &str, report: KeyReport, power: &str) -> GenesisValidator {
    let KeyReport { public_key, proof_of_possession, certificate_request: _, genesis_hash: _ } = report;
    GenesisValidator {
        name: name.to_owned(),
        public_key,
        proof_of_possession,
        power: power.to_owned(),
        owner: None,
        stake: None,
    }
}

fn read_validator(text: &str) -> Result<GenesisValidator, CliError> {
    let (report, validator) = read_key_report(text)?;
    if let Some(pinned) = &report.genesis_hash {
        return Err(CliError::Failed(format!(
            "--validator {text}: this node has pinned genesis {pinned} already; a new chain needs a new volume"
        )));
    }
    Ok(validator)
}

/// Reads `REPORT.json:POWER`; the file's name is the node's.
pub(super) fn read_key_report(text: &str) -> Result<(KeyReport, GenesisValidator), CliError> {
    let failed = |what: String| CliError::Failed(format!("--validator {text}: {what}"));
    let (path, power) = text.rsplit_once(':').ok_or_else(|| failed("write REPORT.json:POWER".to_owned()))?;
    let path = Path::new(path);
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let content = std::fs::read(path).map_err(|error| failed(format!("cannot read the report: {error}")))?;
    let report: KeyReport =
        serde_json::from_slice(&content).map_err(|error| failed(format!("not a key report of `init-key`: {error}")))?;
    let validator = validator(name, report.clone(), power);
    Ok((report, validator))
}

/// Sets what `NAME:ADDRESS` says.
pub(super) fn set_owner(validators: &mut [GenesisValidator], text: &str) -> Result<(), CliError> {
    let failed = |what: &str| CliError::Failed(format!("--owner {text}: {what}"));
    let (name, owner) = text.split_once(':').ok_or_else(|| failed("write NAME:ADDRESS"))?;
    let mut named = validators.iter_mut().filter(|validator| validator.name == name);
    named.next().ok_or_else(|| failed("no --validator has this name"))?.owner = Some(owner.to_owned());
    Ok(())
}

fn read_account(text: &str) -> Result<GenesisAccount, CliError> {
    let (address, balance) =
        text.split_once(':').ok_or_else(|| CliError::Failed(format!("--account {text}: write ADDRESS:BALANCE")))?;
    Ok(GenesisAccount { address: address.to_owned(), balance: balance.to_owned() })
}
