//! What must be found nowhere: each secret, in every way in which a program might print it.

use std::{collections::HashMap, fs, path::Path};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use wattle_model::JoinToken;

/// Bytes of a secret that are looked for: a piece of it is bad enough.
const PIECE: usize = 12;
/// Bytes by which they are told apart at first sight; all are longer.
const START: usize = 8;

/// All secrets, by what they are.
#[derive(Default)]
pub(crate) struct Needles(Vec<(String, Vec<u8>)>);

impl Needles {
    /// A join token's string and the secret in it.
    pub(crate) fn token(&mut self, text: &str) {
        let token: JoinToken = text.parse().unwrap();
        self.bytes("the token's secret", token.secret.expose_bytes());
        self.0.push(("the token".into(), text.as_bytes().to_vec()));
        self.0.push(("the token's middle".into(), text.as_bytes()[20..50].to_vec()));
    }

    /// Every private key that a PEM or JSON file holds.
    pub(crate) fn pem_in(&mut self, file: &Path) {
        let text = fs::read_to_string(file).unwrap().replace("\\n", "\n");
        let begin = text.find("PRIVATE KEY-----\n").expect("a private key") + 17;
        let end = begin + text[begin..].find("\n-----END").unwrap();
        let body = &text[begin..end];
        let what = format!("the key in {}", file.display());
        for line in body.lines().filter(|line| line.len() > 16) {
            self.0.push((what.clone(), line.as_bytes().to_vec()));
        }
        // PKCS #8 of a P-256 key: the private number begins at 36.
        let der = STANDARD.decode(body.replace('\n', "")).unwrap();
        self.bytes(&what, &der[36..68]);
    }

    /// An agent's two keys.
    pub(crate) fn identity(&mut self, file: &Path) {
        self.pem_in(file);
        let text = fs::read_to_string(file).unwrap();
        let at = text.find("\"wireguard_key\": \"").expect("a WireGuard key") + 18;
        let key = STANDARD.decode(&text[at..at + 44]).unwrap();
        self.bytes(&format!("the WireGuard key in {}", file.display()), &key);
        for kept in text.split("\"secret\": \"").skip(1) {
            let secret = STANDARD.decode(&kept[..44]).unwrap();
            self.bytes(&format!("the network's secret in {}", file.display()), &secret);
        }
    }

    /// The network's secrets among them.
    pub(crate) fn network_secrets(&self) -> usize {
        self.0.iter().filter(|(what, _)| what.starts_with("the network's secret")).count()
    }

    fn bytes(&mut self, what: &str, secret: &[u8]) {
        let half = &secret[secret.len() / 2..];
        for part in [&secret[..PIECE], &half[..PIECE]] {
            let hex = hex::encode(part);
            let decimal = format!("{part:?}");
            let forms = [
                ("raw", part.to_vec()),
                ("hex", hex.clone().into_bytes()),
                ("hex", hex.to_uppercase().into_bytes()),
                ("base64", STANDARD_NO_PAD.encode(part).into_bytes()),
                ("base64url", URL_SAFE_NO_PAD.encode(part).into_bytes()),
                ("numbers", decimal.trim_matches(['[', ']']).as_bytes().to_vec()),
                ("escapes", part.escape_ascii().to_string().into_bytes()),
            ];
            self.0.extend(forms.map(|(form, needle)| (format!("{what} ({form})"), needle)));
        }
        self.0.push((what.to_owned(), STANDARD.encode(secret).into_bytes()));
    }

    /// What is found first in a text, and where.
    pub(crate) fn found_in(&self, text: &[u8]) -> Option<(&str, usize)> {
        self.find(text, "")
    }

    /// The same of the token alone.
    pub(crate) fn token_found_in(&self, text: &[u8]) -> Option<(&str, usize)> {
        self.find(text, "the token")
    }

    /// One walk over the text for all needles: logs are long.
    fn find(&self, text: &[u8], of: &str) -> Option<(&str, usize)> {
        let mut by_start: HashMap<&[u8], Vec<&(String, Vec<u8>)>> = HashMap::new();
        for one in self.0.iter().filter(|(what, _)| what.starts_with(of)) {
            by_start.entry(&one.1[..START]).or_default().push(one);
        }
        text.windows(START).enumerate().find_map(|(at, start)| {
            let found = by_start.get(start)?.iter().find(|(_, it)| text[at..].starts_with(it))?;
            Some((found.0.as_str(), at))
        })
    }
}
