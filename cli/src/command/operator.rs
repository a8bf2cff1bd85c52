//! `wattle operator …`. A new operator's private key is made here and goes into the file; the
//! control plane sees a signing request.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use wattle_certs::{KeyPair, certificate_to_pem};
use wattle_model::OperatorId;
use wattle_proto::{
    Invalid as _,
    admin::{
        self, CreateOperatorRequest, CreateOperatorResponse, ListOperatorsRequest,
        RenewOperatorRequest, RevokeOperatorRequest,
    },
};
use wattle_runtime::credential::{OperatorCredential, PrivateKeyPem};

use super::{PAGE, all_pages};
use crate::{
    args::Format,
    client::{Client, request_id},
    console::Console,
    context::Context,
    failure::Failure,
    shape::{self, Operator, Revised},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an operator and write the credential file
    Create(Create),
    /// Show operators
    List,
    /// Give your own credential a certificate of the control plane's present root
    ///
    /// Needed while the control plane's CA is rotated, by everybody who has a credential. The file is
    /// rewritten where it is; key, role and end stay the same.
    Renew,
    /// End an operator: the credential is good for nothing any more
    Revoke {
        /// The operator's name, or the id that `wattle operator list` shows
        operator: String,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
The private key is made on this machine and is only in the file (mode 0600), which is never \
overwritten. Give the file to the operator, who puts it at ~/.config/wattle/operator.json or names \
it with --context.

Examples:
  wattle operator create ann --role operator
  wattle operator create ci --role viewer --ttl 30days --file /etc/ci/wattle.json")]
pub(crate) struct Create {
    /// The operator's name
    name: String,
    /// What the operator may do
    #[arg(long, value_enum)]
    role: Role,
    /// How long the credential is good for; a year where not said
    #[arg(long, value_parser = super::duration)]
    ttl: Option<Duration>,
    /// Where the credential goes; NAME.json in this folder where not said
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Create {
    fn file(&self) -> PathBuf {
        self.file.clone().unwrap_or_else(|| PathBuf::from(format!("{}.json", self.name)))
    }

    /// Refuses a file that can't be written before anybody is made an operator.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let file = self.file();
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(Failure::Failed(format!("{}: there is no such folder", file.display())));
        }
        // A link that leads nowhere is in the way, too.
        match file.symlink_metadata() {
            Ok(_) => Err(exists(&file)),
            Err(_) => Ok(()),
        }
    }
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// Reads everything but secrets
    Viewer,
    /// Also changes networks, nodes and join tokens
    Operator,
    /// Also makes and revokes operators
    Admin,
}

impl From<Role> for admin::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

/// What a program is told of a new operator.
#[derive(Debug, Serialize)]
struct Created {
    operator: Operator,
    file: PathBuf,
    revision: u64,
}

pub(crate) async fn run(
    client: &mut Client,
    command: Command,
    console: &mut Console,
) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create(client, args, console).await,
        Command::List => {
            let operators = list(client).await?;
            console.list(&operators)
        }
        Command::Renew => renew(client, console).await,
        Command::Revoke { operator, yes } => revoke(client, &operator, yes, console).await,
    }
}

async fn create(client: &mut Client, args: Create, console: &mut Console) -> Result<(), Failure> {
    let (file, key) = (args.file(), KeyPair::generate());
    let request = CreateOperatorRequest {
        request_id: request_id(),
        name: args.name,
        role: admin::Role::from(args.role).into(),
        csr: key.csr().into(),
        time_to_live: args.ttl.map(super::message),
    };
    let response = client.admin.create_operator(request).await?.into_inner();
    let (revision, message) = (response.revision, response.operator.clone());
    let operator: Operator = shape::present("operator", message)?;
    credential(&key, response)?
        .create(&file)
        .map_err(|error| unwritten(&file, &operator, &error))?;
    let said = format!(
        "operator {} created with role {}; the credential is in {}",
        operator.name,
        operator.role,
        file.display()
    );
    console.done(&Created { operator, file, revision }, revision, &said)
}

fn credential(
    key: &KeyPair,
    response: CreateOperatorResponse,
) -> Result<OperatorCredential, Failure> {
    let operator = response.operator.field("operator")?;
    Ok(OperatorCredential {
        control_planes: response.control_planes,
        trust_domain: response.trust_domain,
        ca_certificates: response.ca_certificates.iter().map(pem).collect(),
        certificate: pem(&response.certificate),
        private_key: PrivateKeyPem::new(key.to_pem()),
        name: operator.name.parse().field("operator.name")?,
        id: OperatorId::try_from(operator.id.as_ref()).field("operator.id")?,
    })
}

fn pem(der: &Bytes) -> String {
    certificate_to_pem(&der.to_vec().into())
}

fn unwritten(file: &Path, operator: &Operator, error: &io::Error) -> Failure {
    let id = &operator.id;
    let why = match error.kind() {
        io::ErrorKind::AlreadyExists => exists(file).to_string(),
        _ => format!("{}: {error}", file.display()),
    };
    Failure::Failed(format!(
        "{why}\nThe operator was made, but nobody has the key: `wattle operator revoke {id}`, then \
         try again."
    ))
}

fn exists(file: &Path) -> Failure {
    let file = file.display();
    Failure::Failed(format!("{file} exists and is never overwritten: choose another --file"))
}

async fn list(client: &mut Client) -> Result<Vec<Operator>, Failure> {
    let operators = all_pages(async |page_token| {
        let request = ListOperatorsRequest { page_size: PAGE, page_token };
        let page = client.admin.list_operators(request).await?.into_inner();
        Ok((page.operators, page.next_page_token))
    });
    Ok(shape::all(operators.await?)?)
}

/// What a program is told of a renewed credential.
#[derive(Debug, Serialize)]
struct Renewed {
    file: PathBuf,
}

async fn renew(client: &mut Client, console: &mut Console) -> Result<(), Failure> {
    let Context { path, credential } = &client.context;
    let key = KeyPair::from_pem(credential.private_key.expose()).map_err(Failure::failed)?;
    let request = RenewOperatorRequest { csr: key.csr().into() };
    let mut renewed = credential.clone();
    let response = client.admin.renew_operator(request).await?.into_inner();
    renewed.certificate = pem(&response.certificate);
    renewed.ca_certificates = response.ca_certificates.iter().map(pem).collect();
    let path = path.clone();
    renewed
        .replace(&path)
        .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    let said = format!("{} has a new certificate", path.display());
    match console.format() {
        Format::Table => console.line(&said),
        Format::Json | Format::Yaml => console.json(&Renewed { file: path }),
    }
}

async fn revoke(
    client: &mut Client,
    operator: &str,
    yes: bool,
    console: &mut Console,
) -> Result<(), Failure> {
    let found = find(list(client).await?, operator)?;
    let question = format!("Revoke operator {} ({}, role {})?", found.name, found.id, found.role);
    console.confirm(yes, &question)?;
    let id = hex::decode(&found.id).map_err(Failure::failed)?.into();
    let request = RevokeOperatorRequest { request_id: request_id(), id };
    let revision = client.admin.revoke_operator(request).await?.into_inner().revision;
    console.done(&Revised { revision }, revision, &format!("operator {} revoked", found.name))
}

/// By id, or by the name of one who is live: names of others may have been used again.
fn find(operators: Vec<Operator>, wanted: &str) -> Result<Operator, Failure> {
    let is_meant = |operator: &Operator| {
        operator.id == wanted || (operator.name == wanted && operator.state == "live")
    };
    operators.into_iter().find(is_meant).ok_or_else(|| {
        Failure::Failed(format!(
            "there is no live operator {wanted}: `wattle operator list` shows those there are"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn operator(name: &str, id: u8, revoked: bool) -> Operator {
        let id = Bytes::copy_from_slice(&[id; 16]);
        let message = admin::Operator { id, name: name.into(), revoked, ..Default::default() };
        message.try_into().unwrap()
    }

    #[test]
    fn a_name_means_whoever_has_it_now() {
        let all = || vec![operator("ann", 1, true), operator("ann", 2, false)];
        assert_eq!(find(all(), "ann").unwrap().id, "02".repeat(16));
        assert_eq!(find(all(), &"01".repeat(16)).unwrap().id, "01".repeat(16));
        let failure = find(all(), "bob").unwrap_err();
        assert!(failure.to_string().contains("no live operator bob"), "{failure}");
    }

    #[test]
    fn a_file_in_the_way_is_noticed_before_anything_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let create = |file: &str| {
            let file = Some(folder.path().join(file));
            Create { name: "ann".into(), role: Role::Viewer, ttl: None, file }
        };
        assert_eq!(create("new.json").check(), Ok(()));
        fs::write(folder.path().join("old.json"), "").unwrap();
        assert!(create("old.json").check().unwrap_err().to_string().contains("never overwritten"));
        let failure = create("none/new.json").check().unwrap_err();
        assert!(failure.to_string().contains("no such folder"), "{failure}");
        let unnamed = Create { file: None, ..create("") };
        assert_eq!(unnamed.file(), PathBuf::from("ann.json"));
    }

    #[test]
    fn the_credential_holds_what_a_connection_needs() {
        let key = KeyPair::generate();
        let id = Bytes::from_static(&[5; 16]);
        let response = CreateOperatorResponse {
            operator: Some(admin::Operator { id, name: "ann".into(), ..Default::default() }),
            certificate: Bytes::from_static(b"leaf"),
            ca_certificates: vec![Bytes::from_static(b"root")],
            trust_domain: "wattle-0123".into(),
            control_planes: vec!["192.0.2.1:7443".into()],
            revision: 3,
        };
        let credential = credential(&key, response.clone()).unwrap();
        assert_eq!(credential.private_key.expose(), key.to_pem().as_str());
        assert_eq!((credential.name.as_str(), credential.id), ("ann", OperatorId::new([5; 16])));
        assert!(credential.certificate.starts_with("-----BEGIN CERTIFICATE-----\n"));
        assert_eq!(credential.control_planes, ["192.0.2.1:7443"]);
        let nobody = CreateOperatorResponse { operator: None, ..response };
        let failure = super::credential(&key, nobody).unwrap_err();
        assert!(failure.to_string().contains("operator: missing"), "{failure}");
    }
}
