//! `admin create`: an operator made over the local socket. The private key is made here and goes
//! into the credential file, nowhere else.

use std::{
    io::{ErrorKind, Write as _, stdout},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use rustls::pki_types::CertificateDer;
use wattle_certs::{KeyPair, certificate_to_pem};
use wattle_model::{OperatorId, OperatorName};
use wattle_proto::admin::{
    self as proto, CreateOperatorRequest, CreateOperatorResponse,
    admin_service_client::AdminServiceClient,
};
use wattle_runtime::{
    credential::{OperatorCredential, PrivateKeyPem},
    dial,
};

use crate::config::{DEFAULT_DATA_DIR, admin_socket};

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// The operator's name: lower-case letters, digits and '-'
    name: OperatorName,

    /// What the operator may do
    #[arg(long, value_enum, default_value_t = Role::Admin)]
    role: Role,

    /// Where the credential is written; nothing is overwritten [default: NAME.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// The data directory of the running control plane
    #[arg(long, env = "WATTLE_DATA_DIR", value_name = "DIR", default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,

    /// Its local socket [default: admin.sock in the data directory]
    #[arg(long, env = "WATTLE_ADMIN_SOCKET", value_name = "FILE")]
    admin_socket: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// Reads everything but secrets
    Viewer,
    /// Also changes networks, nodes and join tokens
    Operator,
    /// Also makes and revokes operators
    Admin,
}

impl Create {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let socket = self.admin_socket.unwrap_or_else(|| admin_socket(&self.data_dir));
        let out = self.out.unwrap_or_else(|| format!("{}.json", self.name).into());
        // Looked at before anything is made; the writing below makes sure.
        if out.exists() {
            bail!("{} exists and is not overwritten: choose another with --out", out.display());
        }
        let key = KeyPair::generate();
        let made = create(&socket, &self.name, self.role, &key).await?;
        write(&out, self.name.clone(), key, made)?;
        writeln!(stdout(), "{}", out.display()).context("writing the file's name")
    }
}

async fn create(
    socket: &Path,
    name: &OperatorName,
    role: Role,
    key: &KeyPair,
) -> anyhow::Result<CreateOperatorResponse> {
    let channel = dial::unix(socket).await.with_context(|| {
        format!(
            "no control plane answers on {}: start it with `wattle-controlplane serve`, or say its --data-dir",
            socket.display()
        )
    })?;
    let role = match role {
        Role::Viewer => proto::Role::Viewer,
        Role::Operator => proto::Role::Operator,
        Role::Admin => proto::Role::Admin,
    };
    let request = CreateOperatorRequest {
        request_id: rand::random::<[u8; 16]>().to_vec().into(),
        name: name.to_string(),
        role: role.into(),
        csr: key.csr().into(),
        time_to_live: None,
    };
    let answer = AdminServiceClient::new(channel).create_operator(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| anyhow!("{}", status.message()))
}

fn write(
    out: &Path,
    name: OperatorName,
    key: KeyPair,
    made: CreateOperatorResponse,
) -> anyhow::Result<()> {
    let operator = made.operator.context("the control plane's answer lacks the operator")?;
    let pem = |der: &[u8]| certificate_to_pem(&CertificateDer::from(der));
    let credential = OperatorCredential {
        control_planes: made.control_planes,
        trust_domain: made.trust_domain,
        ca_certificates: made.ca_certificates.iter().map(|der| pem(der)).collect(),
        certificate: pem(&made.certificate),
        private_key: PrivateKeyPem::new(key.to_pem()),
        id: OperatorId::try_from(operator.id.as_ref()).context("the operator's id")?,
        name,
    };
    credential.create(out).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => anyhow!("{} exists and is not overwritten", out.display()),
        _ => anyhow::Error::new(error).context(format!("writing {}", out.display())),
    })
}
