//! `make demo`: the product in a minute. Three machines become one network, a fourth one joins, one
//! is deleted; each step says what happened and how long it took.

mod report;
mod say;
mod story;

use std::process::ExitCode;

use wattle_integration::catch_interrupts;

fn main() -> ExitCode {
    let outcome = catch_interrupts().and_then(|()| story::tell());
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say::failed(&error);
            ExitCode::FAILURE
        }
    }
}
