//! Paging: every list is a walk over a prefix of the store, cut where a page is full. A page token
//! is the last key of the page before, so a list survives changes and restarts between its pages.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;
use tonic::Status;

use super::error::invalid;
use crate::{
    nodes::store_failed,
    store::{Key, Store, Stored},
};

/// Items on a page where the request doesn't say.
const DEFAULT_SIZE: usize = 100;
/// Items on a page at the most.
const MAX_SIZE: usize = 1000;
/// Bytes of items after which a page ends: most clients take no message of more than 4 MB, and no item
/// is as large as the rest.
const MAX_BYTES: usize = 2 << 20;
/// Keys read from the store at once.
const CHUNK: usize = 256;
/// Keys looked at for one page. A selector that matches little then gives short pages, and no
/// request makes the store walk without end.
const MAX_LOOKED_AT: usize = 20_000;

/// Which page of what.
pub(super) struct PageRequest {
    prefix: Key,
    size: usize,
    after: Option<Key>,
}

impl PageRequest {
    /// Checks what a request says of its page.
    pub(super) fn new(prefix: Key, page_size: u32, page_token: &str) -> Result<Self, Status> {
        let size = match page_size as usize {
            0 => DEFAULT_SIZE,
            size => size.min(MAX_SIZE),
        };
        let after =
            (!page_token.is_empty()).then(|| read_token(&prefix, page_token)).transpose()?;
        Ok(Self { prefix, size, after })
    }

    /// Reads the page: what `read` makes of the stored items, and the token of the next page,
    /// empty after the last.
    pub(super) async fn read<T: Weight>(
        self,
        store: &dyn Store,
        mut read: impl FnMut(&Stored) -> Result<Option<T>, Status>,
    ) -> Result<(Vec<T>, String), Status> {
        let (mut items, mut after) = (Vec::new(), self.after);
        let (mut looked_at, mut bytes) = (0, 0);
        loop {
            let chunk =
                store.list(&self.prefix, after.as_ref(), CHUNK).await.map_err(store_failed)?;
            let in_chunk = chunk.items.len();
            for (index, stored) in chunk.items.into_iter().enumerate() {
                if let Some(item) = read(&stored)? {
                    bytes += item.weight();
                    items.push(item);
                }
                looked_at += 1;
                let last = !chunk.more && index + 1 == in_chunk;
                let full = items.len() == self.size || bytes >= MAX_BYTES;
                if !last && (full || looked_at == MAX_LOOKED_AT) {
                    return Ok((items, write_token(&stored.key)));
                }
                after = Some(stored.key);
            }
            if !chunk.more {
                return Ok((items, String::new()));
            }
        }
    }
}

/// What an item adds to its page, in bytes.
pub(super) trait Weight {
    fn weight(&self) -> usize;
}

impl<T: Message> Weight for T {
    fn weight(&self) -> usize {
        self.encoded_len()
    }
}

/// With its past bodies, so it is never less than what is made of it.
impl Weight for Stored {
    fn weight(&self) -> usize {
        self.value.len()
    }
}

fn write_token(last: &Key) -> String {
    URL_SAFE_NO_PAD.encode(last.as_str())
}

fn read_token(prefix: &Key, token: &str) -> Result<Key, Status> {
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|key| key.starts_with(prefix.as_str()))
        .map(Key::new)
        .ok_or_else(|| {
            invalid("page_token", "not one that this list gave: begin again without a page_token")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keys;

    #[test]
    fn a_token_leads_back_to_its_key_and_only_in_its_list() {
        let key = Key::new("v1/token/0102");
        let token = write_token(&key);
        assert_eq!(read_token(&keys::join_tokens(), &token).unwrap(), key);
        for (prefix, token) in [
            (keys::networks(), token.as_str()),
            (keys::join_tokens(), "***"),
            (keys::join_tokens(), "AAAA"),
        ] {
            let error = read_token(&prefix, token).unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument);
            assert!(error.message().starts_with("page_token: "), "{error}");
        }
    }
}
