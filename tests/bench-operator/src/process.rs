//! An operator as a process, and what it says and uses.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running operator. It is killed when dropped.
pub(crate) struct Operator {
    child: Child,
    port: u16,
    started: Instant,
}

impl Operator {
    /// Starts the operator of this project.
    pub(crate) fn start(program: &Path, kubeconfig: &Path, log: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(program);
        command.arg("run").arg(format!("--http-addr=127.0.0.1:{port}"));
        Self::spawn(command, port, kubeconfig, log)
    }

    /// Starts the Go operator.
    pub(crate) fn start_peer(program: &Path, kubeconfig: &Path, log: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(program);
        command.arg(format!("--metrics=127.0.0.1:{port}"));
        Self::spawn(command, port, kubeconfig, log)
    }

    fn spawn(mut command: Command, port: u16, kubeconfig: &Path, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = command
            .env("KUBECONFIG", kubeconfig)
            // A replica of its own, as on a cluster: nobody takes a predecessor's lease for its own.
            .env("POD_NAME", format!("bench-{port}"))
            // As in config/default/deployment.yaml.
            .env("MALLOC_ARENA_MAX", "1")
            .env("MALLOC_TRIM_THRESHOLD_", "131072")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", command.get_program().display()));
        Self { child, port, started: Instant::now() }
    }

    /// Time since its start.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Panics if it has ended by itself.
    pub(crate) fn check(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the operator ended: {status}");
        }
    }

    /// Seconds of processor time since its start.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name, in parentheses, may hold anything; user and system time are the 12th and 13th field after it.
        let (_, after) = text.rsplit_once(')').unwrap();
        let ticks: f64 = after.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    /// Resident memory now, MiB.
    pub(crate) fn resident(&self) -> f64 {
        self.memory("VmRSS:")
    }

    /// Most memory it ever had resident, MiB.
    pub(crate) fn resident_most(&self) -> f64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let kibibytes: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
        kibibytes / 1024.0
    }

    /// What it tells Prometheus; empty if it does not answer.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics(get(self.port, "/metrics").unwrap_or_default())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// The text format of Prometheus.
#[derive(Default)]
pub(crate) struct Metrics(String);

impl Metrics {
    fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value.parse().ok()?))
        })
    }

    /// Sum of all samples of this name whose labels contain all of `labels`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let matching = self.samples(name).filter(|(found, _)| labels.iter().all(|label| found.contains(label)));
        matching.map(|(_, value)| value).sum()
    }

    /// The upper bound of the bucket that holds this share of a histogram's observations; zero if there is none.
    pub(crate) fn quantile(&self, name: &str, labels: &[&str], share: f64) -> f64 {
        let name = format!("{name}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (found, count) in self.samples(&name).filter(|(found, _)| labels.iter().all(|label| found.contains(label)))
        {
            let Some((_, rest)) = found.split_once("le=\"") else { continue };
            let bound = rest.split('"').next().unwrap_or_default();
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap_or(f64::INFINITY) };
            match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let total = buckets.last().map_or(0.0, |(_, count)| *count);
        buckets.iter().find(|(_, count)| total > 0.0 && *count >= total * share).map_or(0.0, |(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket_over_all_series() {
        let metrics = Metrics(
            "t_bucket{kind=\"A\",le=\"0.1\"} 90\nt_bucket{kind=\"A\",le=\"1\"} 99\nt_bucket{kind=\"A\",le=\"+Inf\"} 100\n\
             t_bucket{kind=\"B\",le=\"0.1\"} 0\nt_bucket{kind=\"B\",le=\"1\"} 0\nt_bucket{kind=\"B\",le=\"+Inf\"} 100\n\
             t_count{kind=\"A\"} 100\n"
                .to_owned(),
        );
        assert!((metrics.quantile("t", &["kind=\"A\""], 0.99) - 1.0).abs() < 1e-9);
        assert!(metrics.quantile("t", &[], 0.99).is_infinite());
        assert!((metrics.sum("t_count", &[]) - 100.0).abs() < 1e-9);
        assert!(metrics.quantile("absent", &[], 0.5).abs() < 1e-9);
    }
}
