//! What light clients read: links between epochs and finalised headers, in their canonical bytes. The node that serves
//! them is not trusted with anything: whoever reads them checks them.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use bizra_driver::light::{Headers, Link};
use bizra_simplex::types::{Epoch, Height};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Gateway;
use super::http::number_or_latest;
use super::problem::Problem;
use super::queries::QueryError;
use crate::storage::StorageError;

/// Most links in one answer. With 128 validators a link has 22 KB.
pub(super) const LINKS_MAX: usize = 32;

/// Which headers are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// The last finalised one.
    Latest,
    /// From this height to the next finalization.
    Height(u64),
    /// From the first header that names this checkpoint.
    Naming(u64),
}

impl Gateway {
    /// Links of consecutive epochs from `from` on, at most [`LINKS_MAX`]; none if that epoch has not ended.
    pub(super) async fn links(&self, from: u64, limit: usize) -> Result<Vec<Bytes>, QueryError> {
        self.read(move |gateway| gateway.blocks.epoch_links(Epoch(from), limit.min(LINKS_MAX))).await
    }

    /// Headers with the finalization of the last.
    pub(super) async fn headers(&self, wanted: Wanted) -> Result<Headers, QueryError> {
        self.read(move |gateway| {
            let (last, _) = gateway.blocks.finalized();
            let oldest = gateway.ledger.oldest()?;
            let from = match wanted {
                Wanted::Latest => last,
                Wanted::Height(height) => Height(height),
                Wanted::Naming(checkpoint) => {
                    match gateway.blocks.header_naming(Height(checkpoint), Height(oldest))? {
                        Some(height) => height,
                        None if checkpoint < oldest => return Ok(Err(QueryError::Pruned { oldest })),
                        None => return Ok(Err(QueryError::NotFound("no finalised header names this checkpoint"))),
                    }
                }
            };
            let headers = gateway.blocks.finalised_headers(from)?;
            let missing = if from.0 < oldest {
                QueryError::Pruned { oldest }
            } else {
                QueryError::NotFound("no finalization is near enough to this header")
            };
            Ok::<_, StorageError>(headers.ok_or(missing))
        })
        .await?
    }
}

/// A link, decoded as far as people look at it; the bytes are what counts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LinkBody {
    epoch: u64,
    height: u64,
    hash: String,
    next_validators: usize,
    /// Canonical bytes, hex.
    link: String,
}

#[derive(Serialize)]
pub(super) struct LinksBody {
    epochs: Vec<LinkBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HeadersBody {
    from: u64,
    to: u64,
    hash: String,
    /// Canonical bytes, hex.
    headers: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

fn link_body(bytes: Bytes) -> Result<LinkBody, Problem> {
    let corrupt = |error| QueryError::Storage(StorageError::Corrupt(format!("a stored link does not decode: {error}")));
    let Link { block, next, .. } = Link::decode(bytes.clone()).map_err(corrupt)?;
    Ok(LinkBody {
        epoch: block.epoch.0,
        height: block.height.0,
        hash: block.digest().to_string(),
        next_validators: next.len(),
        link: hex::encode(bytes),
    })
}

/// `GET /v1/epochs/{epoch}`: the link from an epoch that has ended to the next.
pub(super) async fn epoch(
    State(gateway): State<Gateway>,
    epoch: Result<Path<u64>, PathRejection>,
) -> Result<Json<LinkBody>, Problem> {
    let Path(epoch) = epoch.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let link = gateway.links(epoch, 1).await?.pop();
    let link = link.ok_or(QueryError::NotFound("this epoch has not ended, or its end is not stored here"))?;
    Ok(Json(link_body(link)?))
}

/// `GET /v1/epochs?from=&limit=`: a page of links.
pub(super) async fn epochs(
    State(gateway): State<Gateway>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<LinksBody>, Problem> {
    let Query(PageQuery { from, limit }) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = limit.unwrap_or(LINKS_MAX);
    if !(1..=LINKS_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!("limit must be 1 to {LINKS_MAX}")));
    }
    let epochs = gateway.links(from, limit).await?.into_iter().map(link_body).collect::<Result<_, _>>()?;
    Ok(Json(LinksBody { epochs }))
}

async fn answer(gateway: &Gateway, wanted: Wanted) -> Result<Json<HeadersBody>, Problem> {
    let headers = gateway.headers(wanted).await?;
    let ends = headers.blocks.first().zip(headers.blocks.last());
    let (first, last) = ends.ok_or(QueryError::NotFound("no header is finalised yet"))?;
    Ok(Json(HeadersBody {
        from: first.height.0,
        to: last.height.0,
        hash: first.digest().to_string(),
        headers: hex::encode(headers.encode()),
    }))
}

/// `GET /v1/headers/{height}`, or `latest`: the header and those up to the next finalization.
pub(super) async fn headers(
    State(gateway): State<Gateway>,
    height: Result<Path<String>, PathRejection>,
) -> Result<Json<HeadersBody>, Problem> {
    let wanted = number_or_latest(height, "a height")?.map_or(Wanted::Latest, Wanted::Height);
    answer(&gateway, wanted).await
}

/// `GET /v1/checkpoints/{height}/headers`: the first header that names the checkpoint, and those up to the next
/// finalization.
pub(super) async fn headers_naming(
    State(gateway): State<Gateway>,
    height: Result<Path<u64>, PathRejection>,
) -> Result<Json<HeadersBody>, Problem> {
    let Path(height) = height.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    answer(&gateway, Wanted::Naming(height)).await
}
