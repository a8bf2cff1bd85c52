//! The commands, one noun a file: each has its arguments, and asks and prints what they say.

pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod operator;
mod status;
pub(crate) mod token;
pub(crate) mod wait;
pub(crate) mod watch;

use std::{path::PathBuf, time::Duration};

use tonic::Status;

use crate::{args::Command, client, console::Console, failure::Failure};

/// Items asked for at once.
const PAGE: u32 = 500;

/// Connects and does one command.
pub(crate) async fn run(
    context: Option<PathBuf>,
    command: Command,
    console: &mut Console,
) -> Result<(), Failure> {
    if let Command::Watch(watch) = command {
        return watch::run(context, watch, console).await;
    }
    // What the command line alone can tell is refused before the control plane is asked.
    if let Command::Operator(operator::Command::Create(create)) = &command {
        create.check()?;
    }
    let mut client = client::connect(context).await?;
    match command {
        Command::Status => status::run(&mut client, console).await,
        Command::Network(command) => network::run(&mut client, command, console).await,
        Command::Node(command) => node::run(&mut client, command, console).await,
        Command::Token(command) => token::run(&mut client, command, console).await,
        Command::Operator(command) => operator::run(&mut client, command, console).await,
        Command::Wait(wait) => wait::run(&mut client, &wait, console).await,
        Command::Watch(_) => unreachable!("it was done above"),
    }
}

/// Everything that a list holds. `page` asks for the page that a token names.
async fn all_pages<T>(
    mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String), Status>,
) -> Result<Vec<T>, Status> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (items, next) = page(token).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}

/// A duration such as `90s`, `24h` or `7days`.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}: write 90s, 24h or 7days"))
}

/// A duration as requests carry it; one too long for a message is the control plane's to refuse.
fn message(duration: Duration) -> prost_types::Duration {
    const MOST: prost_types::Duration = prost_types::Duration { seconds: i64::MAX, nanos: 0 };
    prost_types::Duration::try_from(duration).unwrap_or(MOST)
}

/// Hex of any length: the control plane says how long it should be.
fn hex(text: &str) -> Result<bytes::Bytes, String> {
    hex::decode(text).map(Into::into).map_err(|_| format!("{text:?} is not hex, as lists show ids"))
}
