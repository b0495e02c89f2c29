//! Files with the payload, or with contents that cannot be read.

use super::{
    super::{ContainerSample, Expected, payload},
    fixtures,
    writer::{
        PdfWriter, ascii85, attachment, base64, flate, hex, literal, lzw, object_stream,
        png_predicted, run_length, tiff_predicted,
    },
};
use crate::report::NoteKind;

pub(crate) fn samples() -> Vec<ContainerSample> {
    let mut samples = filters();
    samples.extend(flate_variants());
    samples.extend(objects());
    samples.extend(damaged());
    samples.extend(scripts());
    samples.extend(encrypted());
    samples.extend(not_readable());
    samples.extend(headers());
    samples
}

/// Headers that viewers accept.
fn headers() -> Vec<ContainerSample> {
    let file = attachment("/Filter/FlateDecode", &flate(&payload()));
    let rest = &file[8..];
    let with = |header: &[u8]| [header, rest].concat();
    let cases = [
        ("header-postscript", with(b"%!PS-Adobe-3.0 PDF-1.4")),
        ("header-no-hyphen", with(b"%PDF1.4")),
        ("header-missing", with(b"")),
        ("header-far", with(&[&[b' '; 1100][..], b"%PDF-1.4"].concat())),
    ];
    let sample = |(name, bytes)| ContainerSample::payload(format!("pdf-{name}"), bytes);
    cases.into_iter().map(sample).collect()
}

fn filters() -> Vec<ContainerSample> {
    let payload = payload();
    let predicted = |predictor| format!("<</Predictor {predictor}/Columns 8>>");
    let cases: Vec<(&str, String, Vec<u8>)> = vec![
        ("plain", String::new(), payload.clone()),
        ("ascii85", "/Filter/ASCII85Decode".into(), ascii85(&payload)),
        (
            "ascii85-marked",
            "/Filter/ASCII85Decode".into(),
            [b"\n<~".as_slice(), &ascii85(&payload)].concat(),
        ),
        ("hex", "/Filter/ASCIIHexDecode".into(), hex(&payload)),
        ("hex-flate", "/Filter[/ASCIIHexDecode/FlateDecode]".into(), hex(&flate(&payload))),
        ("flate", "/Filter/FlateDecode".into(), flate(&payload)),
        ("flate-twice", "/Filter[/FlateDecode /FlateDecode]".into(), flate(&flate(&payload))),
        (
            "abbreviated",
            "/Filter[/AHx/A85/LZW/RL/Fl]".into(),
            hex(&ascii85(&lzw(&run_length(&flate(&payload)), true))),
        ),
        ("escaped-name", "/F#69lter/Fl#61teDecode".into(), flate(&payload)),
        ("run-length", "/Filter/RunLengthDecode".into(), run_length(&payload)),
        ("lzw", "/Filter/LZWDecode".into(), lzw(&payload, true)),
        (
            "lzw-late",
            "/Filter/LZWDecode/DecodeParms<</EarlyChange 0>>".into(),
            lzw(&payload, false),
        ),
        (
            "png-predictor",
            format!("/Filter/FlateDecode/DecodeParms{}", predicted(12)),
            flate(&png_predicted(&payload)),
        ),
        (
            "tiff-predictor",
            format!("/Filter[/LZWDecode]/DecodeParms[{}]", predicted(2)),
            lzw(&tiff_predicted(&payload), true),
        ),
        ("short-keys", format!("/F/Fl/DP{}", predicted(15)), flate(&png_predicted(&payload))),
        ("two-filters", "/Filter/FlateDecode/Filter/AHx".into(), flate(&payload)),
        ("crypt-identity", "/Filter[/Crypt/FlateDecode]".into(), flate(&payload)),
    ];
    let sample = |(name, dict, data): (&str, String, Vec<u8>)| {
        ContainerSample::payload(format!("pdf-{name}"), attachment(&dict, &data))
    };
    cases.into_iter().map(sample).collect()
}

fn flate_variants() -> Vec<ContainerSample> {
    let payload = payload();
    let valid = flate(&[payload.as_slice(), b"more"].concat());
    let mut checksum = valid.clone();
    *checksum.last_mut().unwrap() ^= 1;
    let damaged = [b"\x78\x9d".as_slice(), &valid[2..]].concat();
    // A stored block with the payload, and one whose length is wrong.
    let length = u16::try_from(payload.len()).unwrap();
    let stored = [&[0_u8][..], &length.to_le_bytes(), &(!length).to_le_bytes(), &payload].concat();
    let broken = [b"\x78\x9c".as_slice(), &stored, &[0, 1, 1, 1, 1]].concat();
    let cases: [(&str, &[u8]); 6] = [
        ("wrong-checksum", &checksum),
        ("truncated", &valid[..valid.len() - 6]),
        ("no-header", &valid[2..]),
        ("damaged-header", &damaged),
        ("broken-after", &broken),
        ("data-after", &[valid.as_slice(), b"\n\n\0\0"].concat()),
    ];
    let sample = |(name, data): (&str, &[u8])| {
        ContainerSample::payload(
            format!("pdf-flate-{name}"),
            attachment("/Filter/FlateDecode", data),
        )
    };
    cases.into_iter().map(sample).collect()
}

/// Objects in places where not every program looks for them.
fn objects() -> Vec<ContainerSample> {
    let payload = payload();
    let stream = |number: u32| {
        let start = format!("{number} 0 obj<</Length {}>>stream\n", payload.len());
        [start.as_bytes(), &payload, b"\nendstream endobj\n"].concat()
    };
    let sample = |name: &str, writer: PdfWriter| {
        ContainerSample::payload(format!("pdf-{name}"), writer.finish())
    };
    let in_object = |value: Vec<u8>| {
        let mut writer = PdfWriter::new("");
        writer.object(9, value);
        writer
    };
    let mut indirect = PdfWriter::new("");
    indirect.object(5, "/FlateDecode");
    indirect.object(6, flate(&payload).len().to_string());
    let data = flate(&payload);
    indirect.object(
        4,
        [b"<</Filter 5 0 R/Length 6 0 R>>stream\r\n".as_slice(), &data, b"endstream"].concat(),
    );
    let mut revised = PdfWriter::new("");
    revised.stream(4, "", &payload);
    revised.raw("4 0 obj null endobj\n");
    let mut commented = PdfWriter::new("");
    commented.raw(
        [
            b"4 %\n0 %x\r\nobj<<%>>\n/Length %\n128>>%y\nstream\n".as_slice(),
            &payload,
            b"\nendstream",
        ]
        .concat(),
    );
    let mut packed = PdfWriter::new("");
    let (dict, content) = object_stream(&[(7, b"<</F/AHx/DP null>>"), (8, b"/Fl")]);
    packed.stream(5, &format!("{dict}/Filter/FlateDecode"), &flate(&content));
    packed.stream(6, "/Filter 8 0 R", &flate(&payload));
    vec![
        sample("in-string", in_object([b"(".as_slice(), &stream(4), b")"].concat())),
        sample("in-comment", in_object([b"%".as_slice(), &stream(4)].concat())),
        sample(
            "in-stream",
            in_object([b"<<>>stream\n1".as_slice(), &stream(4), b"endstream"].concat()),
        ),
        sample("unclosed-before", in_object([b"<</A[<<(x".as_slice(), &stream(4)].concat())),
        sample("indirect-filter", indirect),
        sample("older-revision", revised),
        sample("comments", commented),
        sample("filter-in-object-stream", packed),
    ]
}

/// Files that viewers repair.
fn damaged() -> Vec<ContainerSample> {
    let payload = payload();
    let plain = attachment("", &payload);
    let text = |before: &str, after: &str| {
        let mut writer = PdfWriter::new("");
        writer.raw([before.as_bytes(), &payload, after.as_bytes()].concat());
        writer.finish()
    };
    let mut no_table = PdfWriter::new("");
    no_table.stream(4, "", &payload);
    let mut old = plain.clone();
    old.splice(5..8, *b"9x");
    let junk = |length: usize| [vec![b'x'; length], plain.clone()].concat();
    let missing_end = plain.windows(9).position(|window| window == b"endstream").unwrap();
    let cases = vec![
        ("no-xref", no_table.unfinished()),
        ("junk-before", junk(1000)),
        ("junk-1024", junk(1024)),
        ("byte-order-mark", [b"\xef\xbb\xbf".as_slice(), &plain].concat()),
        ("unknown-version", old),
        ("wrong-length", text("4 0 obj<</Length 5>>stream\n", "\nendstream endobj\n")),
        ("long-length", text("4 0 obj<</Length 5000>>stream\r\n", "\r\nendstream endobj\n")),
        ("no-length", text("4 0 obj<<>>stream\n", "endstream")),
        ("no-endstream", text("4 0 obj<<>>stream\n", "\nendobj\n")),
        ("no-endobj", text("4 0 obj<<>>\nstream\r", "\nendstream\n5 0 obj null\n")),
        ("text-after-stream", text("4 0 obj<<>>stream junk\n", "\nendstream\n")),
        ("space-after-stream", text("4 0 obj<<>>stream  \r\n", "\nendstream\n")),
        ("unclosed-dict", text("4 0 obj<</A<<stream\n", "\nendstream\n")),
        ("truncated", plain[..missing_end].to_vec()),
    ];
    cases
        .into_iter()
        .map(|(name, bytes)| ContainerSample::payload(format!("pdf-{name}"), bytes))
        .collect()
}

fn scripts() -> Vec<ContainerSample> {
    let script = literal(&payload());
    let action = [b"<</S/JavaScript/JS".as_slice(), &script, b">>"].concat();
    let wide: Vec<_> = payload().iter().map(|byte| format!("00{byte:02x}")).collect();
    let wide = wide.join(" ");
    let file = |objects: &[(u32, &[u8])]| {
        let mut writer = PdfWriter::new("/OpenAction 4 0 R");
        for (number, value) in objects {
            writer.object(*number, value);
        }
        writer.finish()
    };
    let reference = b"<</S/JavaScript/JS 5 0 R>>".as_slice();
    let mut in_stream = PdfWriter::new("/OpenAction 4 0 R");
    in_stream.object(4, reference);
    in_stream.stream(5, "/Filter/FlateDecode", &flate(&payload()));
    let packed = |filter: &str, encode: fn(&[u8]) -> Vec<u8>| {
        let (dict, content) = object_stream(&[(4, &action), (6, b"7")]);
        let mut writer = PdfWriter::new("/OpenAction 4 0 R");
        writer.stream(5, &format!("{dict}{filter}"), &encode(&content));
        writer.finish()
    };
    let padded = |content: &[u8]| {
        let mut content = content.to_vec();
        content.resize(content.len().next_multiple_of(8), b' ');
        flate(&png_predicted(&content))
    };
    let predicted = "/Filter/FlateDecode/DecodeParms<</Predictor 12/Columns 8>>";
    let escaped = [b"<</S/Java#53cript/J#53".as_slice(), &script, b">>"].concat();
    let cases = vec![
        ("plain", file(&[(4, &action)])),
        ("escaped", file(&[(4, &escaped)])),
        ("utf-16", file(&[(4, format!("<</S/JavaScript/JS<FEFF {wide}>>>").as_bytes())])),
        ("indirect-string", file(&[(4, reference), (5, &script)])),
        ("in-stream", in_stream.finish()),
        ("in-object-stream", packed("", <[u8]>::to_vec)),
        ("in-flate-object-stream", packed("/Filter/FlateDecode", flate)),
        ("in-predicted-object-stream", packed(predicted, padded)),
    ];
    let sample = |(name, bytes)| ContainerSample::payload(format!("pdf-script-{name}"), bytes);
    cases.into_iter().map(sample).collect()
}

fn encrypted() -> Vec<ContainerSample> {
    let plain = {
        let mut writer = PdfWriter::new("");
        writer.stream(4, "/Filter/FlateDecode", &flate(&payload()));
        // Viewers use the last trailer; the contents are not encrypted.
        writer.raw("trailer<</Root 1 0 R/Encrypt<</Filter/Standard/V 1/R 2/O()/U()/P 0>>>>\n");
        writer.finish()
    };
    [
        ("rc4", base64(fixtures::RC4)),
        ("aes-128", base64(fixtures::AES_128)),
        ("aes-128-object-stream", base64(fixtures::AES_128_OBJECT_STREAM)),
        ("aes-256", base64(fixtures::AES_256)),
        ("false-flag", plain),
    ]
    .into_iter()
    .map(|(name, bytes)| ContainerSample::payload(format!("pdf-encrypted-{name}"), bytes))
    .collect()
}

fn not_readable() -> Vec<ContainerSample> {
    let zeros = vec![0; 65 << 20];
    let bomb = attachment("/Filter[/FlateDecode/RL]", &flate(&run_length(&zeros)));
    let handler = attachment("", b"x");
    let handler = String::from_utf8_lossy(&handler)
        .replace("/Root 1 0 R", "/Root 1 0 R/Encrypt<</Filter/Entrust.PPKEF/V 4>>")
        .into_bytes();
    let mut nested = PdfWriter::new("");
    nested.object(4, vec![b'['; 100_000]);
    let cases = vec![
        ("password", base64(fixtures::PASSWORD), NoteKind::Encrypted),
        ("unknown-encryption", handler, NoteKind::Encrypted),
        ("bomb", bomb, NoteKind::Limit),
        ("nested", nested.finish(), NoteKind::Limit),
        ("unknown-filter", attachment("/Filter/Other", b"x"), NoteKind::Unreadable),
        ("picture-as-file", attachment("/Filter/JBIG2Decode", b"x"), NoteKind::Unreadable),
        ("invalid-flate", attachment("/Filter/Fl", b"\x78\x9c\xff\xff"), NoteKind::Unreadable),
        ("no-objects", b"%PDF-1.7\nstartxref\n0\n%%EOF".to_vec(), NoteKind::Unreadable),
    ];
    let sample = |(name, bytes, kind)| {
        ContainerSample::new(format!("pdf-{name}"), bytes, Expected::Note(kind))
    };
    cases.into_iter().map(sample).collect()
}
