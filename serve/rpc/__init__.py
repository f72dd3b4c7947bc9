"""Transport-side translation: generated code, conversion, status, services, interceptors."""
