"""The public interface as JSON over HTTP, for browsers and curl."""
