//! One binary for all targets: `BIZRA_FUZZ_TARGET=name bizra-fuzz CORPUS [libFuzzer's options]`.
#![no_main]

use std::sync::OnceLock;

use bizra_fuzz::{TARGETS, Target, target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("BIZRA_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("BIZRA_FUZZ_TARGET={name:?} is no target; there are: {}", names.join(" "));
        std::process::exit(2);
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| CHOSEN.get_or_init(chosen).1(data));
