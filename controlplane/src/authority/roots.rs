//! The store's record of its roots, read: which count, which one signs, and what one says of another.

use std::time::SystemTime;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use wattle_certs::{InvalidCertificate, Root, root_of};
use wattle_model::Fingerprint;
use wattle_proto::store as proto;
use wattle_runtime::clock;

/// Older roots that a chain leads back to, at most: each rotation adds one for a year.
const MAX_LINKS: usize = 4;

/// The roots of a control plane. One that was read has at least one that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// In the order in which they were added.
    trusted: Vec<CertificateDer<'static>>,
    signing: Fingerprint,
    first: Fingerprint,
    crosses: Vec<CertificateDer<'static>>,
    retired: Vec<CertificateDer<'static>>,
}

/// The record of the roots makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRoots {
    /// It names none.
    #[error("it has no CA certificate")]
    None,
    /// One of them can't be read.
    #[error("a CA certificate: {0}")]
    Certificate(#[from] InvalidCertificate),
    /// A pin that is none, or of no root.
    #[error("{0} is the pin of none of its CA certificates")]
    Pin(&'static str),
}

impl Roots {
    /// The one root of a new control plane.
    pub fn only(root: &CertificateDer<'static>, pin: Fingerprint) -> Self {
        let trusted = vec![root.clone()];
        Self { trusted, signing: pin, first: pin, crosses: Vec::new(), retired: Vec::new() }
    }

    /// Reads a record.
    pub fn read(record: &proto::Cluster) -> Result<Self, InvalidRoots> {
        let trusted = certificates(&record.ca_certificates);
        let oldest = Root::of(trusted.first().ok_or(InvalidRoots::None)?)?.pin;
        let pin = |bytes: &Bytes, name| match bytes.as_ref() {
            [] => Ok(oldest),
            bytes => Fingerprint::try_from(bytes).map_err(|_| InvalidRoots::Pin(name)),
        };
        let roots = Self {
            signing: pin(&record.signing_root, "signing_root")?,
            first: pin(&record.first_root, "first_root")?,
            crosses: certificates(&record.cross_certificates),
            retired: certificates(&record.retired_certificates),
            trusted,
        };
        let pins = roots.trusted.iter().map(|root| Root::of(root).map(|root| root.pin));
        match pins.collect::<Result<Vec<_>, _>>()?.contains(&roots.signing) {
            true => Ok(roots),
            false => Err(InvalidRoots::Pin("signing_root")),
        }
    }

    /// Writes them into a record.
    pub fn write(&self, record: &mut proto::Cluster) {
        record.ca_certificates = bytes(&self.trusted);
        record.cross_certificates = bytes(&self.crosses);
        record.retired_certificates = bytes(&self.retired);
        record.signing_root = Bytes::copy_from_slice(self.signing.as_bytes());
        record.first_root = Bytes::copy_from_slice(self.first.as_bytes());
    }

    /// Those that count, in the order in which they were added.
    pub fn trusted(&self) -> &[CertificateDer<'static>] {
        &self.trusted
    }

    /// Those that no longer count, and may still be known.
    pub fn retired(&self) -> &[CertificateDer<'static>] {
        &self.retired
    }

    /// Those that count, as everybody is told them: the one that signs comes first.
    pub fn told(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        let signs = |root: &&CertificateDer<'static>| is(root, self.signing);
        let others = self.trusted.iter().filter(move |root| !signs(root));
        self.trusted.iter().filter(signs).chain(others)
    }

    /// The root that certificates should be of.
    pub const fn signing(&self) -> Fingerprint {
        self.signing
    }

    /// The root of a record's certificate; empty bytes are of the time before there was a second.
    pub fn of_record(&self, root: &[u8]) -> Fingerprint {
        Fingerprint::try_from(root).unwrap_or(self.first)
    }

    /// A root that counts, by its pin.
    pub fn find(&self, pin: Fingerprint) -> Option<&CertificateDer<'static>> {
        self.trusted.iter().find(|root| is(root, pin))
    }

    /// Until when an older root vouches for a later one; `None` where it doesn't.
    pub fn vouches_until(&self, root: &CertificateDer<'_>) -> Option<SystemTime> {
        let by =
            |cross: &&CertificateDer<'static>| root_of(cross, std::slice::from_ref(root)).is_some();
        let until = self.crosses.iter().filter(by).filter_map(|cross| Root::of(cross).ok());
        until.map(|cross| cross.not_after).max()
    }

    /// A root, and what older ones say of it: each link a certificate of its key and the root that
    /// signed that.
    pub(super) fn chain(&self, root: &CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        let (mut chain, mut last) = (vec![root.clone()], root.clone());
        for _ in 0..MAX_LINKS {
            let Some((cross, older)) = self.older(&last) else { break };
            chain.extend([cross.clone(), older.clone()]);
            last = older.clone();
        }
        chain
    }

    fn older(
        &self,
        root: &CertificateDer<'static>,
    ) -> Option<(&CertificateDer<'static>, &CertificateDer<'static>)> {
        let (pin, now) = (Root::of(root).ok()?.pin, clock::now());
        let of_it = |cross: &&CertificateDer<'static>| {
            Root::of(cross).is_ok_and(|cross| cross.pin == pin && cross.not_after > now)
        };
        let cross = self.crosses.iter().find(of_it)?;
        let known = self.trusted.iter().chain(&self.retired);
        let signed = |root: &&CertificateDer<'static>| root_of(cross, std::slice::from_ref(root));
        let older = known.clone().find(|root| signed(root).is_some())?;
        Some((cross, older))
    }

    /// With one more root, which an older one vouches for; `None` where it is there already.
    #[must_use]
    pub fn with(
        &self,
        root: CertificateDer<'static>,
        cross: CertificateDer<'static>,
    ) -> Option<Self> {
        let mut with = self.clone();
        if with.trusted.contains(&root) {
            return None;
        }
        with.trusted.push(root);
        with.crosses.push(cross);
        Some(with)
    }

    /// With this root to sign, where it was added later than the one that signs now: a replica that
    /// still has the old key takes nothing back.
    #[must_use]
    pub fn signed_by(&self, pin: Fingerprint) -> Option<Self> {
        let place = |pin| self.trusted.iter().position(|root| is(root, pin));
        (place(pin)? > place(self.signing)?).then(|| Self { signing: pin, ..self.clone() })
    }

    /// Without the roots that were added after the one that signs, and what is said of them. `None`
    /// where there is none.
    #[must_use]
    pub fn give_up(&self) -> Option<Self> {
        let signs = self.trusted.iter().position(|root| is(root, self.signing))?;
        let mut left = self.clone();
        let newer = left.trusted.split_off(signs + 1);
        let of_them = |cross: &CertificateDer<'static>| {
            Root::of(cross).is_ok_and(|cross| newer.iter().any(|root| is(root, cross.pin)))
        };
        left.crosses.retain(|cross| !of_them(cross));
        (!newer.is_empty()).then_some(left)
    }

    /// Without the roots older than the one that signs, and without what has run out of those that
    /// went before. `None` where there is none older.
    #[must_use]
    pub fn retire(&self, now: SystemTime) -> Option<Self> {
        let signs = self.trusted.iter().position(|root| is(root, self.signing))?;
        if signs == 0 {
            return None;
        }
        let mut left = self.clone();
        left.retired.extend(left.trusted.drain(..signs));
        let lives =
            |cross: &CertificateDer<'static>| Root::of(cross).is_ok_and(|c| c.not_after > now);
        left.crosses.retain(lives);
        let crosses = left.crosses.clone();
        left.retired.retain(|root| {
            crosses.iter().any(|cross| root_of(cross, std::slice::from_ref(root)).is_some())
        });
        Some(left)
    }
}

fn is(root: &CertificateDer<'_>, pin: Fingerprint) -> bool {
    Root::of(root).is_ok_and(|root| root.pin == pin)
}

fn certificates(all: &[Bytes]) -> Vec<CertificateDer<'static>> {
    all.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
}

fn bytes(all: &[CertificateDer<'static>]) -> Vec<Bytes> {
    all.iter().map(|der| Bytes::copy_from_slice(der)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wattle_certs::Ca;

    use super::*;

    fn ca() -> Ca {
        Ca::generate(&"test".parse().unwrap(), SystemTime::now())
    }

    fn with(roots: &Roots, by: &Ca, new: &Ca) -> Roots {
        let cross = by.cross_sign(new.certificate(), SystemTime::now()).unwrap();
        roots.with(new.certificate().clone(), cross).unwrap()
    }

    #[test]
    fn a_rotation_goes_forward_and_leaves_a_way_from_the_past() {
        let [one, two, three] = [ca(), ca(), ca()];
        let roots = Roots::only(one.certificate(), one.pin());
        assert!(roots.retire(SystemTime::now()).is_none() && roots.signed_by(two.pin()).is_none());
        let roots = with(&roots, &one, &two);
        assert_eq!(roots.told().collect::<Vec<_>>(), [one.certificate(), two.certificate()]);
        let roots = roots.signed_by(two.pin()).unwrap();
        assert!(roots.signed_by(one.pin()).is_none(), "nothing goes back");
        assert_eq!(roots.told().collect::<Vec<_>>(), [two.certificate(), one.certificate()]);
        let roots = roots.retire(SystemTime::now()).unwrap();
        assert_eq!(roots.trusted(), [two.certificate().clone()]);
        let roots = with(&roots, &two, &three).signed_by(three.pin()).unwrap();
        let roots = roots.retire(SystemTime::now()).unwrap();
        let chain = roots.chain(three.certificate());
        let on_it: Vec<_> = [&three, &two, &one].map(|ca| chain.contains(ca.certificate())).into();
        assert_eq!((chain.len(), on_it), (5, vec![true; 3]));
        assert_eq!(roots.of_record(&[]), one.pin(), "whoever was there before the first rotation");

        let mut record = proto::Cluster::default();
        roots.write(&mut record);
        assert_eq!(Roots::read(&record).unwrap(), roots);
    }

    #[test]
    fn a_root_that_has_signed_nothing_is_given_up_and_leaves_nothing_behind() {
        let [one, two, three] = [ca(), ca(), ca()];
        let roots = Roots::only(one.certificate(), one.pin());
        assert!(roots.give_up().is_none());
        let both = with(&roots, &one, &two);
        assert_eq!(both.give_up().unwrap(), roots);
        let switched = both.signed_by(two.pin()).unwrap();
        assert!(switched.give_up().is_none(), "it has signed");
        let next = switched.retire(SystemTime::now()).unwrap();
        assert_eq!(with(&next, &two, &three).give_up().unwrap(), next, "older ones' word stays");
    }

    #[test]
    fn what_has_run_out_is_dropped() {
        let [one, two, three] = [ca(), ca(), ca()];
        let roots = with(&Roots::only(one.certificate(), one.pin()), &one, &two);
        let roots = roots.signed_by(two.pin()).unwrap().retire(SystemTime::now()).unwrap();
        assert_eq!(roots.retired(), [one.certificate().clone()]);
        assert!(roots.vouches_until(one.certificate()).is_some());
        let roots = with(&roots, &two, &three).signed_by(three.pin()).unwrap();
        let two_years = SystemTime::now() + Duration::from_secs(2 * 365 * 24 * 3600);
        let roots = roots.retire(two_years).unwrap();
        assert!(roots.retired().is_empty() && roots.crosses.is_empty());
        assert_eq!(roots.chain(three.certificate()), [three.certificate().clone()]);
    }

    #[test]
    fn a_record_that_makes_no_sense_is_refused() {
        let one = ca();
        let mut record = proto::Cluster::default();
        assert!(Roots::read(&record).is_err());
        record.ca_certificates = vec![one.certificate().to_vec().into()];
        assert_eq!(Roots::read(&record).unwrap().signing(), one.pin(), "as before there were pins");
        record.signing_root = ca().pin().as_bytes().to_vec().into();
        assert!(Roots::read(&record).is_err());
    }
}
