//! Archives as strangers write them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use tar::{EntryType, Header};

use super::super::limits::Limits;
use super::super::out::{Out, OutError};
use super::*;

/// One member, as it is, however wrong.
fn member(name: &[u8], kind: u8, size_bytes: u64, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkflag = [kind];
    header.set_size(size_bytes);
    header.set_mode(0o644);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().div_ceil(512) * 512, 0);
    bytes
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    member(name.as_bytes(), b'0', content.len() as u64, content)
}

fn extended(kind: u8, content: &[u8]) -> Vec<u8> {
    member(b"x", kind, content.len() as u64, content)
}

/// A PAX record with its own length in front.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn small() -> Limits {
    Limits {
        files: 5,
        folders: 4,
        file_bytes: 1 << 20,
        source_bytes: 3 << 20,
        ratio: 20,
        ratio_from_bytes: 64 << 10,
        tar_header_bytes: 4096,
        ..Limits::default()
    }
}

type Files = Vec<(String, Vec<u8>)>;

fn unpacked(bytes: &[u8]) -> Result<Files, UnpackError> {
    let space = tempfile::tempdir().unwrap();
    fs::write(space.path().join("archive"), bytes).unwrap();
    let root = space.path().join("out");
    fs::create_dir(&root).unwrap();
    let limits = small();
    unpack(&space.path().join("archive"), &mut Out::new(&root, &limits))?;
    // Nothing beside what was to be unpacked.
    assert_eq!(crate::base::files::names(space.path()).unwrap().len(), 2);
    let names = crate::base::files::walk(&root).unwrap();
    Ok(names.iter().map(|name| (name.to_string_lossy().into_owned(), fs::read(root.join(name)).unwrap())).collect())
}

fn names(bytes: &[u8]) -> Vec<String> {
    unpacked(bytes).unwrap().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn tar_and_gzip_are_unpacked() {
    let bytes = archive(&[member(b"./", b'5', 0, b""), member(b"./d/", b'5', 0, b""), file("./d/x", b"one"), file("y", b"two")]);
    let expected = vec![("d/x".to_string(), b"one".to_vec()), ("y".to_string(), b"two".to_vec())];
    assert_eq!(unpacked(&bytes).unwrap(), expected);
    assert_eq!(unpacked(&gzip(&bytes)).unwrap(), expected);
    // Several gzip streams behind each other are one, and what follows the end of an archive is not its own.
    let (first, second) = bytes.split_at(700);
    assert_eq!(unpacked(&[gzip(first), gzip(second)].concat()).unwrap(), expected);
    assert_eq!(unpacked(&[bytes.clone(), file("z", b"behind the end")].concat()).unwrap(), expected);
    assert_eq!(unpacked(&[gzip(&bytes), b"garbage".to_vec()].concat()).unwrap(), expected);
    // Without an end it ends with its last member.
    assert_eq!(unpacked(&bytes[..bytes.len() - 1024]).unwrap(), expected);
    assert!(unpacked(&gzip(&bytes)[..40]).is_err());
    assert!(matches!(unpacked(&vec![b'x'; 2000]), Err(UnpackError::Format(_))));
    assert!(unpacked(b"").unwrap().is_empty());
}

#[test]
fn long_names_come_from_gnu_and_from_pax() {
    let long = format!("{}/x", "d".repeat(150));
    let gnu = [extended(b'L', format!("{long}\0").as_bytes()), file("short", b"1")];
    assert_eq!(names(&archive(&gnu)), std::slice::from_ref(&long));
    let pax = [extended(b'x', &record("path", &long)), file("short", b"1")];
    assert_eq!(names(&archive(&pax)), std::slice::from_ref(&long));
    // PAX counts more than GNU, and a name with a line end in it is read as one.
    let both = [extended(b'L', b"gnu"), extended(b'x', &record("path", "pax")), file("short", b"1")];
    assert_eq!(names(&archive(&both)), ["pax"]);
    let tricky = [extended(b'x', &[record("comment", "a\n15 path=evil\n"), record("mtime", "1e99")].concat()), file("good", b"1")];
    assert_eq!(names(&archive(&tricky)), ["good"]);
    // The size of a record counts, as in archives of large files.
    let sized = [extended(b'x', &record("size", "3")), member(b"a", b'0', 0, b"one"), file("b", b"two")];
    assert_eq!(unpacked(&archive(&sized)).unwrap(), [("a".to_string(), b"one".to_vec()), ("b".to_string(), b"two".to_vec())]);
    let global = [extended(b'g', &record("comment", "c0ffee")), file("a", b"1")];
    assert_eq!(names(&archive(&global)), ["a"]);
}

#[test]
fn headers_have_a_size() {
    for kind in [b'L', b'K', b'x', b'g'] {
        let at_most = archive(&[extended(kind, &[b'\0'; 4096]), file("a", b"")]);
        assert!(!matches!(unpacked(&at_most), Err(UnpackError::Header(_))), "{kind}");
        // It says so, whether it comes or not.
        for size_bytes in [4097, 1 << 30, 1 << 62] {
            let wrong = archive(&[member(b"x", kind, size_bytes, b""), file("a", b"")]);
            assert!(matches!(unpacked(&wrong), Err(UnpackError::Header(4096))), "{kind} {size_bytes}");
        }
    }
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    let x = |records: &[u8]| extended(b'x', records);
    for (name, members) in [
        ("two names", vec![extended(b'L', b"a"), extended(b'L', b"b"), file("x", b"")]),
        ("two records of a name", vec![x(&[record("path", "a"), record("path", "b")].concat()), file("x", b"")]),
        ("two headers", vec![x(&record("path", "a")), x(&record("path", "b")), file("x", b"")]),
        ("a size for all", vec![extended(b'g', &record("size", "1")), file("x", b"")]),
        ("a name for all", vec![extended(b'g', &record("path", "1")), file("x", b"")]),
        ("no member behind it", vec![x(&record("path", "a"))]),
        ("a length that is none", vec![x(b"x path=a\n"), file("x", b"")]),
        ("a length beyond the end", vec![x(b"999 path=a\n"), file("x", b"")]),
        ("a length of nothing", vec![x(b"0 path=a\n"), file("x", b"")]),
        ("a record without a value", vec![x(b"7 path\n"), file("x", b"")]),
        ("a folder with content", vec![member(b"d", b'5', 1, b"1"), file("x", b"")]),
        ("an old folder with content", vec![file("d/", b"1")]),
        ("a size that is none", vec![x(&record("size", "-1")), file("x", b"")]),
        ("a size that is too much", vec![x(&record("size", "99999999999999999999")), file("x", b"")]),
    ] {
        assert!(matches!(unpacked(&archive(&members)), Err(UnpackError::Format(_))), "{name}: {:?}", unpacked(&archive(&members)));
    }
    let mut wrong = archive(&[file("x", b"1")]);
    wrong[3] ^= 1;
    assert!(matches!(unpacked(&wrong), Err(UnpackError::Format(why)) if why.contains("sum")));
    // Cut in a header, in a file, in what fills its block.
    let whole = [file("a", b"one"), file("b", &[7; 600])].concat();
    for cut in [100, 513, 600, 1024 + 511, 1024 + 512 + 300, 1024 + 512 + 600] {
        assert!(matches!(unpacked(&whole[..cut]), Err(UnpackError::Format(_))), "{cut}");
    }
}

#[test]
fn what_reaches_outside_is_refused() {
    for name in ["../x", "/etc/x", "a/../../x", "a//b", ".git/config", "a/.Git/hooks/post-checkout", "a\\\\b", "a\\nb"] {
        let name = name.replace("\\\\", "\\").replace("\\n", "\n");
        assert!(matches!(unpacked(&archive(&[file(&name, b"x")])), Err(UnpackError::Out(OutError::Name { .. }))), "{name}");
        let pax = archive(&[extended(b'x', &record("path", &name)), file("x", b"x")]);
        assert!(matches!(unpacked(&pax), Err(UnpackError::Out(OutError::Name { .. }))), "{name}");
        let folder = archive(&[member(name.as_bytes(), b'5', 0, b"")]);
        assert!(matches!(unpacked(&folder), Err(UnpackError::Out(OutError::Name { .. }))), "{name}");
    }
    assert!(matches!(unpacked(&archive(&[file("", b"x")])), Err(UnpackError::Out(OutError::Name { .. }))));
    assert!(matches!(unpacked(&archive(&[member(b"\xff", b'0', 0, b"")])), Err(UnpackError::Name(_))));
    // Links of both kinds, devices, a pipe, and what no standard knows.
    for kind in [b'1', b'2', b'3', b'4', b'6', b'Z', b'D', b'M', b'V'] {
        assert!(matches!(unpacked(&archive(&[member(b"x", kind, 0, b"")])), Err(UnpackError::Kind(_))), "{kind}");
    }
    // A link to a folder does not lead a later file out.
    let through = [member(b"d", b'2', 0, b""), file("d/x", b"x")];
    assert!(matches!(unpacked(&archive(&through)), Err(UnpackError::Kind(_))));
    for holes in [
        vec![member(b"x", b'S', 0, b"")],
        vec![extended(b'x', &record("GNU.sparse.major", "1")), file("x", b"")],
        vec![extended(b'x', &record("GNU.sparse.map", "0,1")), file("x", b"")],
    ] {
        assert!(matches!(unpacked(&archive(&holes)), Err(UnpackError::Holes(_))));
    }
}

#[test]
fn a_name_stands_for_one_thing() {
    for members in [
        vec![file("x", b"1"), file("x", b"2")],
        vec![file("x", b"1"), file("./x", b"2")],
        vec![file("x", b"1"), member(b"x/", b'5', 0, b"")],
        vec![file("x", b"1"), file("x/y", b"2")],
        vec![member(b"x/", b'5', 0, b""), file("x", b"1")],
        vec![file("x/y", b"1"), file("x", b"1")],
    ] {
        assert!(matches!(unpacked(&archive(&members)), Err(UnpackError::Out(OutError::Twice(_)))));
    }
    // Names that differ are different files, where the file system agrees.
    let near = archive(&[file("X", b"1"), file("x", b"2"), file("\u{e4}", b"3"), file("a\u{308}", b"4")]);
    assert!(unpacked(&near).is_err() || names(&near).len() == 4);
}

#[test]
fn only_the_executable_bit_of_a_mode_is_kept() {
    let mut header = Header::new_ustar();
    header.set_path("x").unwrap();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o7777);
    header.set_mtime(u64::MAX >> 1);
    header.set_uid(u64::from(u32::MAX));
    header.set_size(0);
    header.set_cksum();
    let space = tempfile::tempdir().unwrap();
    fs::write(space.path().join("archive"), archive(&[header.as_bytes().to_vec()])).unwrap();
    let limits = small();
    unpack(&space.path().join("archive"), &mut Out::new(space.path(), &limits)).unwrap();
    let mode = fs::metadata(space.path().join("x")).unwrap().permissions().mode();
    assert_eq!((mode & 0o7000, mode & 0o100), (0, 0o100));
}

#[test]
fn each_limit_triggers() {
    let many = |count: usize, folder: bool| -> Vec<Vec<u8>> {
        (0..count).map(|i| if folder { member(format!("d{i}/").as_bytes(), b'5', 0, b"") } else { file(&format!("f{i}"), b"") }).collect()
    };
    assert_eq!(names(&archive(&many(5, false))).len(), 5);
    assert!(matches!(unpacked(&archive(&many(6, false))), Err(UnpackError::Out(OutError::Files(5)))));
    assert!(unpacked(&archive(&many(4, true))).unwrap().is_empty());
    assert!(matches!(unpacked(&archive(&many(5, true))), Err(UnpackError::Out(OutError::Folders(4)))));
    // Folders that nobody lists count as well.
    assert!(matches!(unpacked(&archive(&[file("a/b/c/d/e/f", b"")])), Err(UnpackError::Out(OutError::Folders(4)))));
    // What a header says is refused before it is written.
    let large = |size_bytes| archive(&[member(b"x", b'0', size_bytes, b"")]);
    assert!(matches!(unpacked(&large((1 << 20) + 1)), Err(UnpackError::Out(OutError::FileSize { .. }))));
    assert!(matches!(unpacked(&large(u64::MAX >> 1)), Err(UnpackError::Out(OutError::FileSize { .. }))));
    let noise: Vec<u8> = (0..1u64 << 20).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let four: Vec<Vec<u8>> = (0..4).map(|i| file(&format!("f{i}"), &noise)).collect();
    assert!(matches!(unpacked(&archive(&four)), Err(UnpackError::Out(OutError::Size(_)))));
}

#[test]
fn a_compressed_archive_grows_only_so_much() {
    // 60 KiB of zeros are too little to matter, 1 MiB of them is not.
    assert_eq!(names(&gzip(&archive(&[file("x", &[0; 60 << 10])]))), ["x"]);
    assert!(matches!(unpacked(&gzip(&archive(&[file("x", &[0; 1 << 20])]))), Err(UnpackError::Ratio(20))));
    // Wherever they stand: behind other members, in several streams.
    let behind = gzip(&archive(&[file("a", b"1"), member(b"d/", b'5', 0, b""), file("x", &[0; 1 << 20])]));
    assert!(matches!(unpacked(&behind), Err(UnpackError::Ratio(20))));
    let streams: Vec<u8> = archive(&[file("x", &[0; 1 << 20])]).chunks(1 << 14).flat_map(gzip).collect();
    assert!(matches!(unpacked(&streams), Err(UnpackError::Ratio(20))));
    // Uncompressed the same is as large as it is.
    assert_eq!(names(&archive(&[file("x", &[0; 1 << 20])])), ["x"]);
}
