//! Listing a network's claims on addresses.

use std::net::IpAddr;

use wattle_model::{NetworkName, address_from_bytes};

use crate::store::{Store, StoreError, keys};

/// Keys of one page.
const PAGE: usize = 1000;

/// Every address of a network that somebody holds, or held and nobody else may have yet.
pub(super) async fn addresses(
    store: &dyn Store,
    network: &NetworkName,
) -> Result<Vec<IpAddr>, StoreError> {
    let prefix = keys::addresses(network);
    let (mut addresses, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(&prefix, after.as_ref(), PAGE).await?;
        for stored in &page.items {
            let text = stored.key.as_str().trim_start_matches(prefix.as_str());
            let bytes = hex::decode(text).ok();
            let address = bytes.and_then(|bytes| address_from_bytes(&bytes).ok());
            addresses.push(
                address
                    .ok_or_else(|| StoreError::Corrupt(format!("{} is no address", stored.key)))?,
            );
        }
        after = page.items.last().map(|stored| stored.key.clone());
        if !page.more || after.is_none() {
            return Ok(addresses);
        }
    }
}
