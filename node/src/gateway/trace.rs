//! The W3C `traceparent` header.

use crate::transaction::TraceId;

/// Name of the header, in HTTP and in gRPC metadata.
pub(super) const TRACEPARENT: &str = "traceparent";

/// The trace id of a `traceparent` value; all zeros if there is none or it does not have the form of the standard.
pub(super) fn trace_id(header: Option<&[u8]>) -> TraceId {
    header.and_then(parse).unwrap_or_default()
}

/// `version "-" trace-id "-" parent-id "-" flags`, lower-case hex; version `ff` is forbidden, and versions above `00`
/// may append fields.
fn parse(header: &[u8]) -> Option<TraceId> {
    let text = std::str::from_utf8(header).ok()?;
    let mut fields = text.split('-');
    let [version] = bizra_proto::ceremony::decode_hex::<1>(fields.next()?)?;
    let trace = bizra_proto::ceremony::decode_hex::<16>(fields.next()?)?;
    bizra_proto::ceremony::decode_hex::<8>(fields.next()?).filter(|parent| *parent != [0; 8])?;
    bizra_proto::ceremony::decode_hex::<1>(fields.next()?)?;
    (version != 0xff && (version > 0 || fields.next().is_none())).then_some(TraceId(trace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_of_the_standard_gives_a_trace_id() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace_id(Some(good.as_bytes())).to_string(), "0af7651916cd43dd8448eb211c80319c");
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7-b7ad6b7169203331-01",
        ] {
            assert_eq!(trace_id(Some(bad.as_bytes())), TraceId::default(), "{bad}");
        }
        assert_eq!(trace_id(None), TraceId::default());
    }
}
