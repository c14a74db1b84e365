//! `events`: the event log of a node, as it was and as it grows.

use std::fmt::Write as _;
use std::io::Write as _;

use bizra_proto::v1;
use bizra_proto::v1::events_client::EventsClient;
use clap::Args;

use super::client::{NodeArgs, refused};
use super::output::{OutputArgs, OutputFormat};
use super::termination::CliError;
use crate::event_store::Position;
use crate::gateway::event_json;

/// Print the events of finalised blocks, each once, in order.
#[derive(Args, Clone, Debug)]
pub struct EventsCommand {
    /// The first event, as HEIGHT:INDEX; 1:0 is the very first. By default the next that happens, which needs --follow.
    #[arg(long, value_name = "HEIGHT:INDEX", required_unless_present = "follow")]
    pub from: Option<Position>,
    /// Go on with events as they happen, until Ctrl-C.
    #[arg(long)]
    pub follow: bool,
    /// Print events of this type only; may be repeated.
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Vec<String>,
    /// Where to ask.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How to print: as lines of text, or as JSON, one event a line.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl EventsCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        let request = v1::SubscribeRequest {
            from: self.from.map(|Position { height, index }| v1::EventPosition { height, index }),
            after: false,
            types: self.types,
            history_only: !self.follow,
        };
        let mut client = EventsClient::new(self.node.channel().await?);
        let mut events = client.subscribe(request).await.map_err(refused)?.into_inner();
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        loop {
            // What was printed is shown before the next one is waited for.
            let next = tokio::select! {
                biased;
                next = events.message() => next,
                () = std::future::ready(()) => {
                    out.flush().map_err(CliError::failed)?;
                    events.message().await
                }
            };
            let Some(event) = next.map_err(refused)? else { break };
            let line = match self.output.output {
                OutputFormat::Text => line(&event),
                OutputFormat::Json => event_json(&event).to_string(),
            };
            writeln!(out, "{line}").map_err(CliError::failed)?;
        }
        out.flush().map_err(CliError::failed)
    }
}

/// Position, type, and the other fields in the order of their names.
fn line(event: &v1::Event) -> String {
    let mut text = format!("{:>12}  {:<21}", format!("{}:{}", event.height, event.index), event.r#type);
    if let serde_json::Value::Object(fields) = event_json(event) {
        for (name, value) in fields.iter().filter(|(name, _)| !["height", "index", "type"].contains(&name.as_str())) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // Writing to a string cannot fail.
            let _ = write!(text, " {name}={value}");
        }
    }
    text
}
