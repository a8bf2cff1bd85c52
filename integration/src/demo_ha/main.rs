//! `make demo-ha`: three members of etcd, three replicas, six machines whose packets never stop. One
//! replica is killed, then the member of etcd that leads, then every replica; each time it says what
//! became of packets, streams and revisions.

#[path = "../demo/say.rs"]
mod say;
mod story;

use std::process::ExitCode;

use wattle_integration::catch_interrupts;

fn main() -> ExitCode {
    match catch_interrupts().and_then(|()| story::tell()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            say::failed(&anyhow::anyhow!("something was lost: see above"));
            ExitCode::FAILURE
        }
        Err(error) => {
            say::failed(&error);
            ExitCode::FAILURE
        }
    }
}
