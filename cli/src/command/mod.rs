//! The commands, one noun a file: each has its arguments, and asks and prints what they say.

pub(crate) mod apply;
pub(crate) mod diff;
pub(crate) mod get;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod operator;
pub(crate) mod policy;
pub(crate) mod replica;
pub(crate) mod rotate;
mod status;
pub(crate) mod token;
pub(crate) mod wait;
pub(crate) mod watch;
pub(crate) mod why;

use std::path::PathBuf;

use tonic::Status;

use crate::{
    args::{Command, Format},
    client,
    console::Console,
    failure::Failure,
    text::{duration_message as message, parse_duration as duration},
};

/// Items asked for at once.
const PAGE: u32 = 500;

/// Does one command.
pub(crate) async fn run(
    context: Option<PathBuf>,
    command: Command,
    console: &mut Console,
) -> Result<(), Failure> {
    // What the command line alone can tell is refused before the control plane is asked.
    match &command {
        Command::Get(get) => get.check()?,
        _ if console.format() == Format::Yaml => {
            return Err(Failure::Usage("only `wattle get` writes YAML: use -o json here".into()));
        }
        Command::Operator(operator::Command::Create(create)) => create.check()?,
        _ => {}
    }
    match command {
        Command::Apply(args) => apply::run(context, &args, console).await,
        Command::Diff(args) => {
            diff::run(context, &args, console).await.map_err(Failure::of_comparison)
        }
        Command::Watch(watch) => watch::run(context, watch, console).await,
        command => connected(context, command, console).await,
    }
}

/// The commands that have nothing to do before they connect.
async fn connected(
    context: Option<PathBuf>,
    command: Command,
    console: &mut Console,
) -> Result<(), Failure> {
    let mut client = client::connect(context).await?;
    match command {
        Command::Status => status::run(&mut client, console).await,
        Command::Network(command) => network::run(&mut client, command, console).await,
        Command::Node(command) => node::run(&mut client, command, console).await,
        Command::Token(command) => token::run(&mut client, command, console).await,
        Command::Operator(command) => operator::run(&mut client, command, console).await,
        Command::Replica(command) => replica::run(&mut client, command, console).await,
        Command::Wait(wait) => wait::run(&mut client, &wait, console).await,
        Command::Get(get) => get::run(&mut client, &get, console).await,
        Command::Policy(command) => policy::run(&mut client, command, console).await,
        Command::Why(why) => why::run(&mut client, &why, console).await,
        Command::Apply(_) | Command::Diff(_) | Command::Watch(_) => {
            unreachable!("they connect by themselves")
        }
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

/// Hex of any length: the control plane says how long it should be.
fn hex(text: &str) -> Result<bytes::Bytes, String> {
    hex::decode(text).map(Into::into).map_err(|_| format!("{text:?} is not hex, as lists show ids"))
}
