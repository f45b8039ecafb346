//! Files with certificates and keys, and what to do when a TLS handshake fails.

use std::path::Path;

use anyhow::{Context, bail};
use api::secret::Secret;
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How messages name a server and its settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct TlsSettings {
    pub server: &'static str,
    pub url: &'static str,
    /// The setting with the authorities that are trusted.
    pub authorities: &'static str,
    /// The settings with the client certificate and its key.
    pub client: &'static str,
    /// The setting that enables encryption.
    pub enable: &'static str,
    /// The setting that disables encryption.
    pub disable: &'static str,
}

/// Reads a file with one or more certificates.
///
/// # Errors
/// When the file cannot be read or contains no certificate. The clients would ignore
/// an empty file, and then trust no authority.
pub(crate) fn read_certificates(file: &Path, setting: &str) -> anyhow::Result<Vec<u8>> {
    let pem = read(file, setting)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(pem),
        _ => bail!(
            "{} ({setting}) contains no certificate in PEM format",
            file.display()
        ),
    }
}

/// Reads a file with a private key.
///
/// # Errors
/// When the file cannot be read or contains no key.
pub(super) fn read_key(file: &Path, setting: &str) -> anyhow::Result<Vec<u8>> {
    let pem = read(file, setting)?;
    if PrivateKeyDer::from_pem_slice(&pem).is_err() {
        bail!(
            "{} ({setting}) contains no private key in PEM format",
            file.display()
        );
    }
    Ok(pem)
}

/// Checks the files that an address of Postgres names. The client reads them at each
/// connection, and its error does not name the file.
///
/// # Errors
/// When a file cannot be read, or contains no certificate or key.
pub(super) fn check_postgres_files(url: &Secret) -> anyhow::Result<()> {
    let (_, parameters) = url.expose().split_once('?').unwrap_or_default();
    for (name, value) in form_urlencoded::parse(parameters.as_bytes()) {
        // The value can also be the certificate itself.
        if value.trim().starts_with("-----BEGIN") {
            continue;
        }
        let file = Path::new(&*value);
        match &*name {
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => {
                read_certificates(file, "sslrootcert")?;
            }
            "sslcert" | "ssl-cert" => {
                read_certificates(file, "sslcert")?;
            }
            "sslkey" | "ssl-key" => {
                read_key(file, "sslkey")?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn read(file: &Path, setting: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {} ({setting})", file.display()))
}

/// Appends the next step to the text of an error if it comes from TLS.
///
/// The clients of the three servers wrap the error of rustls differently, and the
/// client of NATS reports only its text. The integration tests fail if the text
/// changes.
pub(super) fn with_advice(error: &str, settings: TlsSettings) -> String {
    match advice(error, settings) {
        Some(advice) => format!("{error}; {advice}"),
        None => error.to_owned(),
    }
}

fn advice(error: &str, settings: TlsSettings) -> Option<String> {
    let has = |text: &str| error.contains(text);
    let TlsSettings {
        server,
        url,
        authorities,
        client,
        enable,
        disable,
    } = settings;
    if has("UnknownIssuer") || has("CaUsedAsEndEntity") {
        Some(format!(
            "no trusted authority issued the certificate of {server}: set {authorities} to a file \
             with the certificate of its authority"
        ))
    } else if has("certificate not valid for name") || has("NotValidForName") {
        Some(format!(
            "the certificate of {server} is for another host: set {url} to a host name in the \
             certificate, or renew the certificate with this name"
        ))
    } else if has("certificate expired") {
        Some(format!("renew the certificate of {server}"))
    } else if has("InvalidContentType") || has("server does not support TLS") {
        Some(format!(
            "{server} does not use TLS at this address: enable TLS there, or {disable}"
        ))
    } else if has("CertificateRequired") || has("valid client certificate") {
        Some(format!(
            "{server} requires a client certificate: set {client}"
        ))
    } else if has("alert: UnknownCA") || has("alert: BadCertificate") {
        Some(format!(
            "{server} does not trust the client certificate: set {client} to a certificate of its \
             authority"
        ))
    } else if has("no encryption") {
        Some(format!("{server} requires TLS: {enable}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: TlsSettings = TlsSettings {
        server: "Redis",
        url: "REDIS_URL",
        authorities: "REDIS_CA_FILE",
        client: "REDIS_CERT_FILE and REDIS_KEY_FILE",
        enable: "use rediss://",
        disable: "use redis://",
    };

    #[test]
    fn tls_error_is_followed_by_the_setting_to_change() {
        for (error, setting) in [
            ("invalid peer certificate: UnknownIssuer", "REDIS_CA_FILE"),
            (
                "received fatal alert: CertificateRequired",
                "REDIS_KEY_FILE",
            ),
            ("received fatal alert: UnknownCA", "REDIS_CERT_FILE"),
            ("corrupt message of type InvalidContentType", "redis://"),
        ] {
            let advice = with_advice(error, SETTINGS);
            assert!(advice.starts_with(error), "{advice}");
            assert!(advice.contains(setting), "{advice}");
        }
        assert_eq!(
            with_advice("connection refused", SETTINGS),
            "connection refused"
        );
    }

    #[test]
    fn file_without_a_certificate_or_key_is_refused() {
        let file = std::env::temp_dir().join(format!("pem-{}", uuid::Uuid::new_v4().simple()));
        let missing = read_certificates(&file, "REDIS_CA_FILE").unwrap_err();
        assert!(missing.to_string().contains("REDIS_CA_FILE"), "{missing}");
        std::fs::write(&file, "not a certificate").unwrap();
        let empty = read_certificates(&file, "REDIS_CA_FILE").unwrap_err();
        assert!(empty.to_string().contains("no certificate"), "{empty}");
        let empty = read_key(&file, "REDIS_KEY_FILE").unwrap_err();
        assert!(empty.to_string().contains("no private key"), "{empty}");
        std::fs::remove_file(file).unwrap();
    }
}
