//! Runs a scenario under many seeds and prints the one that failed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Variable that names a single seed to replay.
pub const SEED_VARIABLE: &str = "EASYMESH_SEED";

/// Runs `scenario` under seeds 0 to `count` - 1, or under the one named by `EASYMESH_SEED`.
///
/// # Panics
/// When the scenario does; before that the seed and how to replay it are printed.
#[expect(clippy::disallowed_methods, reason = "the one setting: which seed to replay")]
pub fn each(count: u64, scenario: impl Fn(u64)) {
    let seeds = match std::env::var(SEED_VARIABLE).ok().map(|text| text.parse::<u64>()) {
        Some(Ok(seed)) => seed..seed + 1,
        Some(Err(error)) => panic!("{SEED_VARIABLE} is not a number: {error}"),
        None => 0..count,
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| scenario(seed))) {
            // The test harness names the thread of a test after it.
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("<this test>");
            let package = env!("CARGO_PKG_NAME");
            eprintln!("seed={seed}; replay with {SEED_VARIABLE}={seed} cargo test -p {package} -- --exact {test}");
            resume_unwind(panic);
        }
    }
}
