//! Why a command wasn't done, in words that say what to do next, and its exit code.

use std::{error::Error, fmt, io, process::ExitCode};

use rustls::AlertDescription;
use tonic::{Code, Status};
use wattle_proto::InvalidField;

/// A command that wasn't done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The command line is wrong. Exit code 2, as clap's.
    Usage(String),
    /// Anything else. Exit code 1.
    Failed(String),
    /// What was compared isn't the same, which has been shown. Exit code 1.
    Differs,
    /// Nobody reads on, as behind a `head`. Exit code 141, as of whom the system ends for it.
    Unread,
    /// It couldn't be compared. Exit code 2, so that a program can tell it from a difference.
    Incomparable(String),
}

impl Failure {
    pub(crate) fn failed(text: impl fmt::Display) -> Self {
        Self::Failed(text.to_string())
    }

    /// The same of a comparison.
    pub(crate) fn of_comparison(self) -> Self {
        match self {
            Self::Failed(text) => Self::Incomparable(text),
            other => other,
        }
    }

    /// Whether anybody has to be told.
    pub(crate) fn is_news(&self) -> bool {
        !matches!(self, Self::Differs | Self::Unread)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::Incomparable(_) => ExitCode::from(2),
            Self::Failed(_) | Self::Differs => ExitCode::from(1),
            Self::Unread => ExitCode::from(141),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) | Self::Incomparable(text) => f.write_str(text),
            Self::Differs => f.write_str("there are differences"),
            Self::Unread => f.write_str("nobody reads on"),
        }
    }
}

/// What to do where a certificate isn't believed. Not all who aren't are told: a connection may be
/// closed before what the control plane says of it has arrived.
const ROTATED: &str = "\
    If the CA was rotated since, make another credential: on the control plane's machine with \
    `wattle-controlplane admin create NAME`, or ask an administrator.";

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if let Some(cause) = lost_by(&status) {
            if is_of_certificate(cause) {
                return Self::Failed(format!(
                    "the control plane doesn't accept this credential's certificate ({cause}); \
                     nothing was done.\n{ROTATED}"
                ));
            }
            return Self::Failed(format!(
                "the connection to the control plane was lost before it answered: {cause}\n\
                 If this was to change something, it is done or not: look before you try again.\n\
                 If it happens every time, this credential's certificate isn't believed. {ROTATED}"
            ));
        }
        let message = match status.message() {
            "" => status.code().description(),
            message => message,
        };
        Self::Failed(match status.code() {
            Code::Unauthenticated => format!(
                "the control plane doesn't accept this credential: {message}\n\
                 Ask an administrator for a new one: `wattle operator create NAME`."
            ),
            Code::PermissionDenied => format!(
                "not permitted: {message}\n\
                 Roles: viewer reads; operator also changes networks, policies, nodes and tokens; admin \
                 also makes and revokes operators."
            ),
            Code::Unavailable => format!(
                "the control plane can't do this now: {message}\nTry again; if it stays so, look \
                 at `wattle status` and the control plane's log."
            ),
            Code::Unimplemented => format!(
                "the control plane doesn't know this: {message}\n\
                 It may be older than this command: compare `wattle --version` with its version."
            ),
            _ => message.to_owned(),
        })
    }
}

/// What ended the connection, where the status doesn't come from the control plane.
fn lost_by(status: &Status) -> Option<&(dyn Error + 'static)> {
    let mut cause = status.source()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause)
}

/// A server says what it thinks of a client's certificate after the handshake, as the first answer.
fn is_of_certificate(cause: &(dyn Error + 'static)) -> bool {
    // The system's error holds the one of TLS without naming it as its source.
    let inner = cause.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
    let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let tls = tls.or_else(|| cause.downcast_ref::<rustls::Error>());
    matches!(
        tls,
        Some(rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
        ))
    )
}

impl From<InvalidField> for Failure {
    fn from(error: InvalidField) -> Self {
        Self::Failed(format!(
            "the control plane answered with something that this command can't read: {error}\n\
             It may be newer than this command: compare their versions."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_isn_t_believed_is_no_lost_connection() {
        let by = |error: rustls::Error| {
            let lost = Status::from_error(Box::new(io::Error::other(error)));
            Failure::from(lost).to_string()
        };
        let said = by(rustls::Error::AlertReceived(AlertDescription::UnknownCA));
        assert!(said.contains("nothing was done") && said.contains("admin create"), "{said}");
        let said = by(rustls::Error::AlertReceived(AlertDescription::CloseNotify));
        assert!(said.contains("look before you try again"), "{said}");
    }

    #[test]
    fn a_status_becomes_words_and_never_a_dump() {
        for (status, expected) in [
            (Status::not_found("name: there is no network x"), "name: there is no network x"),
            (Status::unauthenticated("revoked"), "doesn't accept this credential: revoked\nAsk"),
            (Status::permission_denied("role admin is needed"), "not permitted: role admin is"),
            (Status::unavailable("the store is away"), "can't do this now: the store is away\nTry"),
            (Status::internal(""), "Internal error"),
        ] {
            let failure = Failure::from(status);
            let text = failure.to_string();
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains("Status {") && !text.contains("MetadataMap"), "{text}");
            assert_eq!(failure.exit_code(), ExitCode::from(1));
        }
    }
}
