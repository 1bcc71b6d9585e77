//! One question at a time over plain HTTP, to a port of this machine.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

/// Gets a page: its status and its body.
///
/// # Errors
/// If nobody answers, or not in HTTP.
pub fn get(port: u16, path: &str) -> Result<(u16, String), String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("port {port}, {path}: {error}"))?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| format!("port {port}, {path}: no status in {answer:?}"))?;
    Ok((code, answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned())))
}
