use proptest::prelude::*;

use super::*;

fn disposition(upstream: &[u8], essence: &str, name: Option<&str>) -> String {
    let upstream = HeaderValue::from_bytes(upstream).unwrap();
    let made = content_disposition(Some(&upstream), essence, name);
    made.as_bytes().iter().map(|&byte| char::from(byte)).collect()
}

#[test]
fn passes_safe_value_unchanged() {
    for value in [
        "inline",
        "INLINE; Filename=a.png",
        "inline; filename=\"a \\\"b\\\" c.png\"",
        "inline;filename=\"a;b.png\" ; foo=bar",
        "attachment; filename=\"x\"; filename*=utf-8''%e2%82%ac%20rates",
        "attachment; filename*=iso-8859-1'en'%A3%20rates",
    ] {
        assert_eq!(disposition(value.as_bytes(), "image/png", None), value);
    }
    assert_eq!(
        disposition(b"attachment; filename=a.svg", "image/svg+xml", None),
        "attachment; filename=a.svg"
    );
}

#[test]
fn active_content_is_never_inline() {
    for essence in ["text/html", "image/svg+xml", "application/octet-stream", "application/pdf"] {
        assert_eq!(
            disposition(b"inline; filename=x.html", essence, None),
            "attachment; filename=\"x.html\"",
            "{essence}"
        );
        assert_eq!(content_disposition(None, essence, None), "attachment");
    }
    assert_eq!(content_disposition(None, "image/png", None), "inline");
    assert_eq!(
        disposition(b"form-data; filename=x", "image/png", None),
        "attachment; filename=\"x\""
    );
}

#[test]
fn rebuilds_malformed_value_with_its_name() {
    for (value, expected) in [
        (&b"inline; filename=my cat.png"[..], "inline; filename=\"my cat.png\""),
        (b"inline; filename=a.png;", "inline; filename=\"a.png\""),
        (b"inline; filename=a; filename=b", "inline; filename=\"a\""),
        (b"inline; filename=\"open", "inline; filename=\"_open\"; filename*=UTF-8''%22open"),
        (b"inline, attachment; filename=a", "inline"),
        (b"", "attachment"),
        (b"; filename=a", "attachment; filename=\"a\""),
        (
            "inline; filename=na\u{ef}ve.png".as_bytes(),
            "inline; filename=\"na_ve.png\"; filename*=UTF-8''na%C3%AFve.png",
        ),
        (b"inline; filename*=utf-8''%ff; filename=b", "inline; filename=\"b\""),
        (b"inline; filename*=\"utf-8''a\"", "inline; filename=\"a\""),
        (b"inline; filename*=utf-8\"x\"", "inline; filename=\"x\""),
        (b"inline; filename*=UTF-8\"a; b.png\"; foo=bar", "inline; filename=\"a; b.png\""),
        (b"inline; filename*=utf-8\"a; filename=b", "inline; filename=\"b\""),
        (b"inline; filename*=utf-8''\"x.png\"", "inline; filename=\"x.png\""),
        (b"inline; filename*=utf-8'en'my cat.png", "inline; filename=\"my cat.png\""),
        (b"inline; filename*=utf-8'x.png'", "inline; filename=\"x.png\""),
        (b"inline; filename*=utf-8'x.png", "inline; filename=\"x.png\""),
        (b"inline; filename*=x%20y.png", "inline; filename=\"x y.png\""),
        (b"inline; filename*=\"x.png\"", "inline; filename=\"x.png\""),
        (b"inline; filename*=utf-16''x.png", "inline; filename=\"utf-16''x.png\""),
        (b"inline; filename*=utf-8.png", "inline; filename=\"utf-8.png\""),
        (
            b"inline; filename*=utf-8''%c3%a4 %ff",
            "inline; filename=\"_c3_a4 _ff\"; filename*=UTF-8''%25c3%25a4%20%25ff",
        ),
        (b"inline; filename*=utf-8\"%0d%0ax\"", "inline; filename=\"x\""),
        (b"inline; filename*=utf-8\"\"", "inline"),
        (
            "inline; filename*=utf-8\"na\u{ef}ve.png\"".as_bytes(),
            "inline; filename=\"na_ve.png\"; filename*=UTF-8''na%C3%AFve.png",
        ),
    ] {
        let shown = String::from_utf8_lossy(value).into_owned();
        assert_eq!(disposition(value, "image/png", None), expected, "{shown}");
    }
}

#[test]
fn name_in_path_replaces_upstream_name() {
    assert_eq!(
        disposition(b"inline; filename=a.png", "image/png", Some("b\r\nSet-Cookie: x.png")),
        "inline; filename=\"bSet-Cookie: x.png\""
    );
    assert_eq!(disposition(b"attachment", "image/png", Some("b")), "attachment; filename=\"b\"");
    assert_eq!(
        content_disposition(None, "text/html", Some("\"; x=\"\\%41")),
        "attachment; filename=\"_; x=___41\"; filename*=UTF-8''%22%3B%20x%3D%22%5C%2541"
    );
}

#[test]
fn long_value_is_shortened_to_a_name_with_its_extension() {
    let shortened = |value: &str| {
        let value = shorten(HeaderValue::from_str(value).unwrap(), 512);
        assert!(value.len() <= 512, "{value:?}");
        let parsed = ParsedDisposition::parse(value.as_bytes());
        assert!(parsed.well_formed, "{value:?}");
        (parsed.disposition, parsed.name)
    };
    let kept = format!("inline; filename=\"{}\"", "a".repeat(512 - 19));
    assert_eq!(shorten(HeaderValue::from_str(&kept).unwrap(), 512), kept);

    let encoded = "%E5%86%99".repeat(60);
    let (disposition, name) = shortened(&format!("inline; filename*=utf-8''{encoded}.jpeg"));
    assert_eq!(disposition, DispositionType::Inline);
    assert_eq!(name.unwrap(), format!("{}.jpeg", "\u{5199}".repeat(46)));

    let (disposition, name) =
        shortened(&format!("attachment; filename=\"{}.tar.gz\"", "x".repeat(600)));
    assert_eq!(disposition, DispositionType::Attachment);
    assert_eq!(name.unwrap(), format!("{}.gz", "x".repeat(252)));

    // No extension, and nothing but an unknown type.
    let long = "y".repeat(2000);
    let (_, name) = shortened(&format!("inline; filename={long}.{long}"));
    assert_eq!(name.unwrap(), "y".repeat(255));
    assert_eq!(shortened(&format!("form-data; x={long}")), (DispositionType::Attachment, None));
}

proptest! {
    #[test]
    fn shortened_value_fits_and_is_unchanged_or_well_formed(
        name in "\\PC{0,600}", encoded: bool,
    ) {
        let value = if encoded {
            format!("inline; filename*=UTF-8''{}", utf8_percent_encode(&name, EXT_VALUE))
        } else {
            format!("attachment; filename=\"{name}\"")
        };
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        let shortened = shorten(value.clone(), 512);
        prop_assert!(shortened.len() <= 512);
        let well_formed = ParsedDisposition::parse(shortened.as_bytes()).well_formed;
        prop_assert!(shortened == value || well_formed, "{:?}", shortened);
    }

    #[test]
    fn built_value_is_well_formed_and_keeps_the_name(
        upstream in prop::collection::vec(any::<u8>(), 0..60), name in "\\PC{0,60}", safe: bool,
    ) {
        let essence = if safe { "image/png" } else { "text/html" };
        let upstream = HeaderValue::from_bytes(&upstream).ok();
        for name in [None, Some(&*name)] {
            let made = content_disposition(upstream.as_ref(), essence, name);
            let parsed = ParsedDisposition::parse(made.as_bytes());
            prop_assert!(parsed.well_formed, "{:?}", made);
            prop_assert!(safe || parsed.disposition == DispositionType::Attachment);
            if let Some(name) = name {
                prop_assert_eq!(parsed.name.unwrap_or_default(), sanitize(name));
            }
        }
    }

    #[test]
    fn output_is_well_formed_for_plausible_parameters(text in "[a-z]{1,8}(; ?[a-z*]{1,9}=[ -~]{0,12}){0,3}") {
        let made = content_disposition(Some(&HeaderValue::from_str(&text).unwrap()), "image/png", None);
        prop_assert!(ParsedDisposition::parse(made.as_bytes()).well_formed, "{:?}", made);
    }
}
