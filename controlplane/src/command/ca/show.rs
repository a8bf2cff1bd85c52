//! `ca show`, and where a rotation stands.

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;
use wattle_certs::Root;
use wattle_proto::admin::{self, GetCaRequest, GetCaResponse};

use super::super::place::{self, Place};
use crate::authority::CaFiles;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks the running control plane on this machine; where none answers, it shows what the files say. \
Nothing is changed, ever.")]
pub(in crate::command) struct Show {
    /// How to print
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,

    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs; fields are added, never renamed
    Json,
}

/// Where a rotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// One root, and nothing to do.
    None,
    /// A new root is trusted beside the old one, which still signs.
    Trusted,
    /// The new root signs; the old one is still trusted.
    Signing,
}

impl Stage {
    pub(super) fn of(ca: &GetCaResponse) -> Self {
        let trusted: Vec<_> = ca.roots.iter().filter(|root| root.trusted).collect();
        match trusted[..] {
            [.., newest] if trusted.len() > 1 && newest.signs => Self::Signing,
            [_, _, ..] => Self::Trusted,
            _ => Self::None,
        }
    }

    /// What to do next.
    pub(super) fn next(self, behind: u32) -> String {
        match self {
            Self::None => "no rotation is under way".into(),
            Self::Trusted => {
                "step 1 of 3 is done: both roots are trusted, the old one signs. Next: \
                 `ca rotate --switch`, or give the new key to every replica yourself"
                    .into()
            }
            Self::Signing if behind > 0 => format!(
                "step 2 of 3 is done: the new root signs. Still with a certificate of the old one: \
                 {behind}. Agents renew by themselves within minutes, operators with `wattle \
                 operator renew`, replicas need the new key. Next: `ca rotate --finish`"
            ),
            Self::Signing => {
                "step 2 of 3 is done: the new root signs, and nobody has a certificate \
                 of the old one any more. Next: `ca rotate --finish`"
                    .into()
            }
        }
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    trust_domain: Option<String>,
    roots: Vec<ShownRoot>,
    rotation: Option<Stage>,
    behind: Vec<Behind>,
    behind_count: u32,
    /// The root whose key is in the file.
    key_file: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShownRoot {
    pin: String,
    subject: String,
    not_before: Option<String>,
    not_after: Option<String>,
    trusted: bool,
    signs: bool,
    replica_signs: bool,
    replicas: u32,
    nodes: u32,
    operators: u32,
    join_tokens: u32,
    vouches_until: Option<String>,
}

#[derive(Debug, Serialize)]
struct Behind {
    kind: String,
    name: String,
    online: bool,
    pin: String,
}

impl Show {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.place.config()?;
        let key_file = config.ca.read().ok().flatten().map(|ca| ca.pin().to_string());
        let shown = match place::running(&config).await {
            Ok(mut admin) => {
                let answer = admin.get_ca(GetCaRequest {}).await;
                shown(answer.map_err(|status| place::refused(&status))?.into_inner(), key_file)
            }
            Err(error) => from_files(&config.ca, key_file).with_context(|| error.to_string())?,
        };
        place::say(&match self.output {
            Output::Json => serde_json::to_string_pretty(&shown)?,
            Output::Text => text(&shown),
        })
    }
}

fn shown(ca: GetCaResponse, key_file: Option<String>) -> Shown {
    let rotation = Some(Stage::of(&ca));
    let root = |root: admin::Root| ShownRoot {
        pin: hex::encode(&root.pin),
        subject: root.subject,
        not_before: root.not_before.and_then(date),
        not_after: root.not_after.and_then(date),
        trusted: root.trusted,
        signs: root.signs,
        replica_signs: root.replica_signs,
        replicas: root.replicas,
        nodes: root.nodes,
        operators: root.operators,
        join_tokens: root.join_tokens,
        vouches_until: root.vouches_until.and_then(date),
    };
    let behind = |holder: admin::RootHolder| Behind {
        kind: holder.kind,
        name: holder.name,
        online: holder.online,
        pin: hex::encode(&holder.pin),
    };
    Shown {
        trust_domain: Some(ca.trust_domain),
        roots: ca.roots.into_iter().map(root).collect(),
        rotation,
        behind: ca.behind.into_iter().map(behind).collect(),
        behind_count: ca.behind_count,
        key_file,
    }
}

/// What can be said without a control plane.
fn from_files(files: &CaFiles, key_file: Option<String>) -> anyhow::Result<Shown> {
    let pem = std::fs::read_to_string(&files.certificate)
        .with_context(|| files.certificate.display().to_string())?;
    let mut roots = Vec::new();
    for certificate in wattle_certs::certificates_from_pem(&pem)? {
        let root = Root::of(&certificate)?;
        let date = |time| humantime::format_rfc3339_seconds(time).to_string();
        roots.push(ShownRoot {
            pin: root.pin.to_string(),
            subject: root.subject,
            not_before: Some(date(root.not_before)),
            not_after: Some(date(root.not_after)),
            trusted: false,
            signs: false,
            replica_signs: false,
            replicas: 0,
            nodes: 0,
            operators: 0,
            join_tokens: 0,
            vouches_until: None,
        });
    }
    let nobody = Vec::new();
    Ok(Shown {
        trust_domain: None,
        roots,
        rotation: None,
        behind: nobody,
        behind_count: 0,
        key_file,
    })
}

fn text(shown: &Shown) -> String {
    let mut text = String::new();
    match &shown.trust_domain {
        Some(name) => drop(writeln!(text, "trust domain  {name}")),
        None => drop(writeln!(text, "no control plane answers: this is what the files say")),
    }
    for root in &shown.roots {
        let state = match (root.trusted, root.signs, shown.rotation) {
            (_, _, None) => "in the file",
            (true, true, _) => "trusted, signs",
            (true, false, _) => "trusted",
            (false, _, _) => "no longer trusted",
        };
        let own = if root.replica_signs { ", this replica signs with it" } else { "" };
        let key = if shown.key_file.as_ref() == Some(&root.pin) { ", its key is here" } else { "" };
        let _ = writeln!(text, "\nroot          {}\n  state       {state}{own}{key}", root.pin);
        let _ = writeln!(text, "  subject     {}", root.subject);
        let (from, until) = (&root.not_before, &root.not_after);
        let day = |date: &Option<String>| date.clone().unwrap_or_default();
        let _ = writeln!(text, "  valid       {} to {}", day(from), day(until));
        if shown.rotation.is_some() {
            let (nodes, operators, tokens) = (root.nodes, root.operators, root.join_tokens);
            let _ = writeln!(
                text,
                "  replicas    {} that {} with it\n  holders     nodes {nodes}, operators {operators}; \
                 join tokens that name it {tokens}",
                root.replicas,
                if root.replicas == 1 { "signs" } else { "sign" },
            );
        }
        if let Some(until) = &root.vouches_until {
            let _ = writeln!(text, "  vouches     for a later root until {until}");
        }
    }
    for behind in shown.behind.iter().filter(|_| shown.rotation == Some(Stage::Signing)) {
        let online = if behind.kind == "node" && !behind.online { " (offline here)" } else { "" };
        let _ = writeln!(text, "\nbehind        {} {}{online}", behind.kind, behind.name);
    }
    if let Some(rotation) = shown.rotation {
        let _ = write!(text, "\n{}", rotation.next(shown.behind_count));
    }
    text.trim_end().to_owned()
}

fn date(time: prost_types::Timestamp) -> Option<String> {
    let time = std::time::SystemTime::try_from(time).ok()?;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}
