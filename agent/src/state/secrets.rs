//! The network's secrets as this machine keeps them: those that it was given, and those that a pair still
//! goes by. Kept in the identity file, so that an agent that starts without a control plane has the same
//! preshared keys.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wattle_model::{Generation, NetworkSecret, Secrets};

use super::key_material::network_secret;

/// Secrets by generation, as a Config brings them; `None` of a generation that has none.
pub(crate) type Given = BTreeMap<Generation, Option<NetworkSecret>>;

/// What this machine keeps. Its `Debug` shows no secret: their own type sees to that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptSecrets {
    /// The generation that this node's entry says, as far as it was told.
    used: u64,
    kept: Vec<Kept>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    generation: u64,
    #[serde(with = "network_secret")]
    secret: Option<NetworkSecret>,
    /// The control plane gives it out. Others are kept as long as a pair goes by them.
    given: bool,
}

impl KeptSecrets {
    /// The control plane gives these out and no others. What it gave before stays until it is forgotten:
    /// its word may be older than what peers' entries say.
    pub(crate) fn give(&mut self, given: Given) {
        for kept in &mut self.kept {
            kept.given = false;
        }
        self.kept.retain(|kept| !given.contains_key(&Generation(kept.generation)));
        self.kept.extend(given.into_iter().map(|(generation, secret)| Kept {
            generation: generation.0,
            secret,
            given: true,
        }));
        self.kept.sort_by_key(|kept| kept.generation);
    }

    /// Its entry says this generation from now on.
    pub(crate) fn go_by(&mut self, generation: Generation) {
        self.used = generation.0;
    }

    /// The generation that its entry says.
    pub(crate) const fn used(&self) -> Generation {
        Generation(self.used)
    }

    /// The newest that it was given: what its entry should say.
    pub(crate) fn newest(&self) -> Generation {
        let given = self.kept.iter().filter(|kept| kept.given);
        Generation(given.map(|kept| kept.generation).max().unwrap_or(0))
    }

    /// Whether that has a secret: the network has preshared keys.
    pub(crate) fn is_on(&self) -> bool {
        let newest = self.kept.iter().rfind(|kept| kept.given);
        newest.is_some_and(|kept| kept.secret.is_some())
    }

    /// Whether it keeps some that aren't given out any more.
    pub(crate) fn has_former(&self) -> bool {
        self.kept.iter().any(|kept| !kept.given)
    }

    /// Forgets those that are neither given out nor gone by with anybody; says whether there were any.
    pub(crate) fn forget(&mut self, needed: &BTreeSet<Generation>) -> bool {
        let before = self.kept.len();
        self.kept.retain(|kept| kept.given || needed.contains(&Generation(kept.generation)));
        self.kept.len() != before
    }

    /// What the data plane goes by.
    pub(crate) fn in_use(&self) -> Secrets {
        let known = self.kept.iter();
        let known =
            known.filter_map(|kept| Some((Generation(kept.generation), kept.secret.clone()?)));
        Secrets { used: self.used(), known: known.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(generations: &[u64]) -> Given {
        let secret = |n: u64| NetworkSecret::new([u8::try_from(n).unwrap(); 32]);
        generations.iter().map(|n| (Generation(*n), Some(secret(*n)))).collect()
    }

    fn known(secrets: &KeptSecrets) -> Vec<u64> {
        secrets.in_use().known.into_keys().map(|generation| generation.0).collect()
    }

    #[test]
    fn what_is_no_longer_given_stays_as_long_as_a_pair_goes_by_it() {
        let mut secrets = KeptSecrets::default();
        assert_eq!((secrets.newest(), secrets.used()), (Generation(0), Generation(0)));
        secrets.give(given(&[1]));
        assert_eq!((secrets.newest(), secrets.used()), (Generation(1), Generation(0)));
        secrets.go_by(Generation(1));
        secrets.give(given(&[1, 2]));
        assert_eq!((secrets.newest(), secrets.has_former()), (Generation(2), false));
        secrets.give(given(&[2]));
        assert!(secrets.has_former() && !secrets.forget(&[Generation(1)].into()));
        assert_eq!(known(&secrets), [1, 2]);
        secrets.go_by(Generation(2));
        assert!(secrets.forget(&[Generation(2)].into()) && !secrets.has_former());
        assert_eq!(known(&secrets), [2]);
    }

    /// Turned off, there is one more that is to be come to.
    #[test]
    fn a_generation_without_a_secret_is_given_and_gone_by_as_any_other() {
        let mut secrets = KeptSecrets::default();
        secrets.give(given(&[1]));
        secrets.go_by(Generation(1));
        assert!(secrets.is_on());
        secrets.give([given(&[1]), [(Generation(2), None)].into()].into_iter().flatten().collect());
        assert_eq!(
            (secrets.newest(), secrets.is_on(), known(&secrets)),
            (Generation(2), false, vec![1])
        );
        let text = serde_json::to_string(&secrets).unwrap();
        assert_eq!(serde_json::from_str::<KeptSecrets>(&text).unwrap(), secrets);
    }

    /// A replica that is behind gives out less than another one did.
    #[test]
    fn an_older_word_takes_nothing_away_that_is_in_use() {
        let mut secrets = KeptSecrets::default();
        secrets.give(given(&[1, 2]));
        secrets.go_by(Generation(2));
        secrets.give(given(&[1]));
        secrets.forget(&[Generation(2)].into());
        assert_eq!((known(&secrets), secrets.newest()), (vec![1, 2], Generation(1)));
        secrets.give(BTreeMap::new());
        secrets.forget(&BTreeSet::new());
        assert_eq!((known(&secrets), secrets.newest()), (vec![], Generation(0)));
    }

    #[test]
    fn they_round_trip_and_never_print() {
        let mut secrets = KeptSecrets::default();
        secrets.give(given(&[7]));
        secrets.go_by(Generation(7));
        let text = serde_json::to_string(&secrets).unwrap();
        assert_eq!(serde_json::from_str::<KeptSecrets>(&text).unwrap(), secrets);
        let shown = format!("{secrets:?}");
        assert!(shown.contains("redacted") && !shown.contains("7, 7"), "{shown}");
    }
}
