//! What asks a process to stop: SIGTERM, Ctrl-C, and where it was asked for the end of the process that started it.

use std::io::Read as _;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Listens for SIGTERM and Ctrl-C. As process 1 of a container, signals without a handler would be ignored.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Starts listening; signals from now on are not lost.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Until the next signal.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Until the next signal, or with `or_parent` until the parent process is gone.
    pub async fn wait_for(&mut self, or_parent: bool) {
        if or_parent {
            tokio::select! {
                () = self.wait() => {}
                () = stdin_closed() => {}
            }
        } else {
            self.wait().await;
        }
    }
}

/// Until standard input is closed, as the pipe of a parent is that went, however it went. Reads on a thread of its own,
/// because such a read cannot be cancelled and would keep the runtime from ending.
async fn stdin_closed() {
    let (sender, closed) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut ignored = [0; 256];
        while std::io::stdin().read(&mut ignored).is_ok_and(|bytes| bytes > 0) {}
        drop(sender);
    });
    // Nothing is ever sent: the only end is that of the sender.
    let _ = closed.await;
}
