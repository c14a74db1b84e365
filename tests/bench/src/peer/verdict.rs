//! The table, and what was aimed at next to what came out.

use serde_json::{Value, json};

use super::comet::{Application, Settings};
use super::ladder::Outcome;
use super::{Mode, Side, Subject};
use crate::cores;
use crate::devnet::VALIDATORS;
use crate::load::Run;
use crate::signatures::CheckCost;

/// `signed` finalises so many times what CometBFT does at its best.
const SIGNED_MIN: f64 = 3.0;
/// `signed` finalises in time so many times what CometBFT finalises in time.
const SIGNED_IN_TIME_MIN: f64 = 5.0;
/// Or `signed` comes so near to what the processors could check at all.
const CEILING_SHARE_MIN: f64 = 0.85;
/// `opaque` finalises so many times what CometBFT does.
const OPAQUE_MIN: f64 = 10.0;

/// Finalised a second at the highest rate that was in time.
const IN_TIME: &str = "a second with P99 below 500 ms";

/// What came out of a comparison.
pub(super) struct Verdicts(Vec<Verdict>);

struct Verdict {
    what: String,
    /// None if it was not measured.
    value: Option<f64>,
    /// The least that is aimed at; none where nothing is.
    aim: Option<f64>,
}

pub(super) fn print_header() {
    println!(
        "{:>32} {:>9} {:>11} {:>7} {:>8} {:>8} {:>8} {:>9} {:>8} {:>6}",
        "", "offered/s", "finalised/s", "final %", "p50 ms", "p95 ms", "p99 ms", "CPU us/tx", "B/tx", "MiB"
    );
}

pub(super) fn print_run(subject: Subject, run: &Run, outcome: Outcome) {
    let remark = match outcome {
        Outcome::InTime => "",
        Outcome::Late => "  late",
        Outcome::Overloaded => "  did not keep up",
    };
    println!(
        "{:>32} {:>9} {:>11.0} {:>7.2} {:>8.1} {:>8.1} {:>8.1} {:>9.1} {:>8.0} {:>6.0}{remark}",
        subject.name(),
        run.rate,
        run.number("/finalisedPerSecond"),
        run.applied_share() * 100.0,
        run.number("/latencyMilliseconds/p50"),
        run.number("/latencyMilliseconds/p95"),
        run.number("/latencyMilliseconds/p99"),
        run.cpu_per_transaction(),
        run.bytes_per_transaction(),
        run.usage.resident_bytes_max / f64::from(1 << 20),
    );
}

/// Holds ours against CometBFT at its best, which is tuned, checking no signature, with the gossip that suits it better.
pub(super) fn judge(sides: &[Side], check: CheckCost) -> Verdicts {
    let signed = Rivals::new(sides, Subject::Ours(Mode::Signed));
    let opaque = Rivals::new(sides, Subject::Ours(Mode::Opaque));
    let best = [Settings::Tuned, Settings::TunedSparse].map(|settings| Subject::Comet(settings, Application::Kvstore));
    let ceiling = cores() as f64 * 1e6 / (check.node * VALIDATORS as f64);
    let near = Verdict {
        what: format!("bizra signed, most a second, of the verification ceiling ({:.0} / {ceiling:.0})", signed.most()),
        value: Some(signed.most() / ceiling),
        aim: Some(CEILING_SHARE_MIN),
    };
    let saturation = signed.over("most a second", Side::finalised_max, &best, Some(SIGNED_MIN));
    let timely = signed.over(IN_TIME, Side::finalised_in_time_max, &best, Some(SIGNED_IN_TIME_MIN));
    let reached = (saturation.met() == Some(true) && timely.met() == Some(true)) || near.met() == Some(true);
    let mut verdicts = vec![
        Verdict {
            what: "bizra signed, 1 if both its ratios over comet tuned are met or its share of the ceiling is"
                .to_owned(),
            value: Some(f64::from(u8::from(reached))),
            aim: Some(1.0),
        },
        saturation,
        timely,
        near,
        opaque.over("most a second", Side::finalised_max, &best, Some(OPAQUE_MIN)),
        opaque.over(IN_TIME, Side::finalised_in_time_max, &best, None),
    ];
    for application in [Application::Signed, Application::SignedInBlocks] {
        let peer = [Subject::Comet(Settings::Tuned, application)];
        verdicts.push(signed.over("most a second", Side::finalised_max, &peer, None));
        verdicts.push(signed.over(IN_TIME, Side::finalised_in_time_max, &peer, None));
    }
    for ours in [&signed, &opaque] {
        for point in ["p50", "p99"] {
            verdicts.push(ours.least_lead(point, &best));
        }
    }
    Verdicts(verdicts)
}

/// One of ours and those it is held against.
struct Rivals<'a> {
    sides: &'a [Side],
    ours: Subject,
}

impl<'a> Rivals<'a> {
    const fn new(sides: &'a [Side], ours: Subject) -> Self {
        Self { sides, ours }
    }

    fn side(&self, subject: Subject) -> Option<&'a Side> {
        self.sides.iter().find(|side| side.subject == subject && !side.runs.is_empty())
    }

    fn most(&self) -> f64 {
        self.side(self.ours).map_or(0.0, Side::finalised_max)
    }

    /// How many times what the best of the peers did; endless if they did nothing of it, none if nobody did.
    fn over(&self, what: &str, figure: fn(&Side) -> f64, peers: &[Subject], aim: Option<f64>) -> Verdict {
        let theirs = peers.iter().filter_map(|peer| Some((figure(self.side(*peer)?), peer.name())));
        let theirs = theirs.max_by(|(one, _), (other, _)| one.total_cmp(other));
        let ours = self.side(self.ours).map(figure);
        let name = self.ours.name();
        match ours.zip(theirs) {
            Some((ours, (theirs, peer))) => {
                let what = format!("{name}, {what}, over {peer} ({ours:.0} / {theirs:.0})");
                // Nothing over nothing says nothing.
                Verdict { what, value: (ours > 0.0 || theirs > 0.0).then(|| ours / theirs), aim }
            }
            None => Verdict { what: format!("{name}, {what}: not measured"), value: None, aim },
        }
    }

    /// How many times quicker ours is than the quicker of the peers, at the rate where that is least.
    fn least_lead(&self, point: &str, peers: &[Subject]) -> Verdict {
        let latency = |run: &Run| run.number(&format!("/latencyMilliseconds/{point}"));
        let theirs = |rate| {
            let runs = peers.iter().filter_map(|peer| self.side(*peer)?.at(rate));
            runs.map(latency).min_by(f64::total_cmp)
        };
        let ours = self.side(self.ours);
        let runs = ours.into_iter().flat_map(|side| side.runs.iter().filter_map(|run| side.at(run.rate)));
        let lead = runs.filter_map(|run| Some((theirs(run.rate)? / latency(run), run.rate)));
        let least = lead.min_by(|(one, _), (other, _)| one.total_cmp(other));
        let at = least.map_or_else(|| "no rate that both carried".to_owned(), |(_, rate)| format!("{rate} a second"));
        Verdict {
            what: format!("{}, {point} of comet tuned over ours, least at {at}", self.ours.name()),
            value: least.map(|(lead, _)| lead),
            aim: Some(1.0),
        }
    }
}

impl Verdict {
    /// None where there is no aim; what could not be measured is missed.
    fn met(&self) -> Option<bool> {
        self.aim.map(|aim| self.value.is_some_and(|value| value >= aim))
    }
}

impl Verdicts {
    pub(super) fn print(&self) {
        for verdict in &self.0 {
            let word = verdict.met().map_or("       ", |met| if met { "met    " } else { "missed " });
            let value = verdict.value.map(|value| format!(": {value:.2}")).unwrap_or_default();
            let aim = verdict.aim.map(|aim| format!(", aim at least {aim}")).unwrap_or_default();
            println!("  {word}{}{value}{aim}", verdict.what);
        }
    }

    pub(super) fn json(&self) -> Value {
        let verdict = |verdict: &Verdict| {
            json!({
                "what": verdict.what,
                "value": verdict.value,
                "aimAtLeast": verdict.aim,
                "met": verdict.met(),
            })
        };
        self.0.iter().map(verdict).collect()
    }
}
