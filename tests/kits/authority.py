"""Certificates for tests, signed on the spot."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

import grpc
import trustme

from serve.rpc.credentials import TlsFiles


class Authority:
    """A certificate authority, and files that it signed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.first = self._now = trustme.CA()
        files = TlsFiles(folder / "server.pem", folder / "server.key")
        self.server = files
        self.mutual = TlsFiles(files.certificate, files.key, folder / "clients.pem")
        self.first.cert_pem.write_to_path(folder / "clients.pem")
        self._client = self.first.issue_cert("client@example.org")
        self._issue()

    def renew(self) -> None:
        """Sign the server's certificate by another authority."""
        self._now = trustme.CA()
        self._issue()

    def date(self, first_day: datetime, last_day: datetime) -> None:
        """Sign the server's certificate for some days."""
        self._issue(first_day, last_day)

    def trusting_context(self, *, with_client: bool = False) -> ssl.SSLContext:
        """The same as the standard library has it."""
        context = ssl.create_default_context(cadata=self._now.cert_pem.bytes().decode())
        if with_client:
            self._client.configure_cert(context)
        return context

    def trust(self, *, first: bool = False, with_client: bool = False) -> grpc.ChannelCredentials:
        """What a client that trusts the authority connects with."""
        root = (self.first if first else self._now).cert_pem.bytes()
        if not with_client:
            return grpc.ssl_channel_credentials(root)
        chain = b"".join(blob.bytes() for blob in self._client.cert_chain_pems)
        return grpc.ssl_channel_credentials(root, self._client.private_key_pem.bytes(), chain)

    def _issue(self, first_day: datetime | None = None, last_day: datetime | None = None) -> None:
        made = self._now.issue_cert("127.0.0.1", "localhost", not_before=first_day, not_after=last_day)
        self.server.key.write_bytes(made.private_key_pem.bytes())
        self.server.certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
