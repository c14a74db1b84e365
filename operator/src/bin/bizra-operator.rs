//! The operator's command line.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bizra_operator::{
    api::{BizraNode, Network, NodePool, Validator, definitions},
    controllers::{Settings, bizra_node::heal::HealingLimits, is_installed},
    kubernetes::{Leadership, LeaseSettings},
    ledger::OwnerSeed,
    metrics::Metrics,
    operator::operate,
    probe::PollSettings,
    resources::node::parse_image,
    server::{Health, router},
};
use clap::{Args, Parser, Subcommand};
use k8s_openapi::jiff::SignedDuration;
use kube::Client;

const _: () = assert!(!bizra_operator::planted::PLANTABLE, "the feature `planted` is for the crash campaign alone");

/// Runs BIZRA validator networks on Kubernetes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the operator.
    Run(RunArguments),
    /// Writes the custom resource definitions as YAML, one file a kind.
    Crds {
        /// Folder to write to.
        #[arg(long)]
        out: PathBuf,
    },
    /// Writes the key of a generated owner account, as `bizra-node` takes keys. Reads the seed, which is under `owners.seed` in the Secret
    /// `bizra-owners-…` of the operator's namespace, from standard input.
    OwnerKey {
        /// Name of the Validator whose owner it is.
        validator: String,
    },
}

#[derive(Args)]
struct RunArguments {
    /// Namespaces to watch, separated by commas; all, if none is given.
    #[arg(long, env = "BIZRA_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Namespace of the operator: its lease and the certificate authorities of networks are kept there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "bizra-system")]
    operator_namespace: String,
    /// Name of this replica.
    #[arg(long, env = "POD_NAME", default_value = "bizra-operator")]
    identity: String,
    /// Whether to take part in a leader election, so that several replicas can run.
    #[arg(long, env = "BIZRA_LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set)]
    leader_election: bool,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "BIZRA_HTTP_ADDR", default_value = "0.0.0.0:8080")]
    http_addr: SocketAddr,
    /// Image of nodes that name none.
    #[arg(long, env = "BIZRA_DEFAULT_NODE_IMAGE", default_value = "localhost/bizra:dev")]
    default_node_image: String,
    /// Seconds after which heights are written to a status even if nothing else changed.
    #[arg(long, env = "BIZRA_STATUS_INTERVAL_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    status_interval_seconds: u64,
    /// Seconds between two questions to a node.
    #[arg(long, env = "BIZRA_PROBE_INTERVAL_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    probe_interval_seconds: u64,
    /// Seconds a node has to answer.
    #[arg(long, env = "BIZRA_PROBE_TIMEOUT_SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    probe_timeout_seconds: u64,
    /// Most reconciliations of a kind at the same time.
    #[arg(long, env = "BIZRA_CONCURRENCY", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,
    /// Seconds without progress after which a node is repaired.
    #[arg(long, env = "BIZRA_STUCK_AFTER_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=86_400))]
    stuck_after_seconds: u32,
    /// Seconds between two repairs of a node.
    #[arg(long, env = "BIZRA_REPAIR_COOL_DOWN_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(10..=86_400))]
    repair_cool_down_seconds: u32,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Crds { out } => write_definitions(&out),
        Command::OwnerKey { validator } => write_owner_key(&validator),
        Command::Run(arguments) => run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Before logging is set up, and for people at a terminal.
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_definitions(out: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(out)?;
    for definition in definitions()? {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let path = out.join(format!("{name}.yaml"));
        std::fs::write(&path, serde_yaml_ng::to_string(&definition)?)?;
        println!("{}", path.display());
    }
    Ok(())
}

fn write_owner_key(validator: &str) -> Result<(), Failure> {
    let text = zeroize::Zeroizing::new(std::io::read_to_string(std::io::stdin())?);
    let seed = OwnerSeed::parse(&text).ok_or("standard input is not a seed: 64 lower-case hex digits")?;
    println!("{}", *seed.owner(validator).to_hex());
    Ok(())
}

#[tokio::main]
async fn run(arguments: RunArguments) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BIZRA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).init();

    let mut config = kube::Config::infer().await?;
    // A write that is refused is planned anew, not repeated.
    config.default_retry = false;
    let client = Client::try_from(config.clone())?;
    let metrics = Metrics::new()?;
    let health = Health { ready: Arc::new(AtomicBool::new(false)), metrics: metrics.clone() };
    let listener = tokio::net::TcpListener::bind(arguments.http_addr).await?;
    let server = tokio::spawn(axum::serve(listener, router(health.clone())).into_future());

    tokio::select! {
        result = lead(client, config, arguments, metrics, health) => result,
        result = server => Ok(result??),
    }
}

/// Waits for the kinds, then for leadership, and operates while it lasts. Asked to stop, it gives leadership back.
async fn lead(
    client: Client,
    config: kube::Config,
    arguments: RunArguments,
    metrics: Metrics,
    health: Health,
) -> Result<(), Failure> {
    let begin = async {
        wait_for_kinds(&client, &arguments.namespaces).await;
        health.ready.store(true, Ordering::Relaxed);
        if !arguments.leader_election {
            return Ok(None);
        }
        tracing::info!(identity = %arguments.identity, "waiting for leadership");
        let (namespace, identity) = (&arguments.operator_namespace, &arguments.identity);
        let mut leadership = Leadership::seek(config, namespace, "bizra-operator", identity, LeaseSettings::default())?;
        let tenure = leadership.taken().await?;
        Ok::<_, Failure>(Some((leadership, tenure)))
    };
    let leadership = tokio::select! {
        leadership = begin => leadership?,
        () = stop_signal() => return Ok(()),
    };
    metrics.leader.set(1);
    tracing::info!(identity = %arguments.identity, "leading");

    let settings = Settings {
        operator_namespace: arguments.operator_namespace,
        default_image: parse_image(&arguments.default_node_image),
        status_interval: Duration::from_secs(arguments.status_interval_seconds),
        namespaces: arguments.namespaces,
        concurrency: arguments.concurrency,
        healing: HealingLimits {
            stuck_after: SignedDuration::from_secs(i64::from(arguments.stuck_after_seconds)),
            cool_down: SignedDuration::from_secs(i64::from(arguments.repair_cool_down_seconds)),
        },
    };
    let polling = PollSettings {
        interval: Duration::from_secs(arguments.probe_interval_seconds),
        timeout: Duration::from_secs(arguments.probe_timeout_seconds),
        concurrency: 32,
    };
    let Some((mut leadership, tenure)) = leadership else {
        return Ok(operate(client, &arguments.identity, settings, polling, metrics, stop_signal()).await?);
    };
    let client = tenure.fence(client);
    let operating = operate(client, &arguments.identity, settings, polling, metrics, stop_signal());
    let lost = tokio::select! {
        result = operating => {
            leadership.release().await;
            return Ok(result?);
        }
        lost = leadership.lost() => lost,
    };
    // Whatever was begun may be going on elsewhere already: the process ends here.
    Err(lost.into())
}

async fn wait_for_kinds(client: &Client, namespaces: &[String]) {
    while !(is_installed::<Network>(client, namespaces).await
        && is_installed::<BizraNode>(client, namespaces).await
        && is_installed::<NodePool>(client, namespaces).await
        && is_installed::<Validator>(client, namespaces).await)
    {
        tracing::warn!(
            "the custom resources of bizra.io cannot be listed yet; install crds/ or check the role bindings"
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn stop_signal() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be listened to");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
