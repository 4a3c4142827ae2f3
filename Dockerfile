FROM python:3.13-slim AS base

FROM base AS build
# For strip: two of the wheels carry 16 MB of debugging symbols.
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
COPY requirements-serve.lock requirements-postgres.lock requirements-redis.lock ./
# Wheels only, so that a package without one fails here and not for want of a compiler.
RUN pip install --no-cache-dir --no-compile --only-binary=:all: --require-hashes --prefix=/install \
    --requirement requirements-serve.lock --requirement requirements-postgres.lock \
    --requirement requirements-redis.lock
# Of apsw the service uses its extension module; the other 6 MB are SQLite's tools and apsw's own.
# Nor does a start need the packages' commands, stubs and sources of compiled modules.
RUN rm -r /install/bin \
    && find /install -path '*/apsw/*' -not -name '__init__*.so' -delete \
    && find /install -type f '(' -name '*.py[ix]' -o -name '*.px[di]' ')' -delete \
    && find /install -name '*.so' -exec strip --strip-unneeded '{}' +

# The load of `docker compose --profile load up`, no part of the service's image.
FROM base AS load
WORKDIR /srv/millrace
COPY requirements-load.lock .
RUN pip install --no-cache-dir --only-binary=:all: --require-hashes --requirement requirements-load.lock
COPY --chmod=755 loadtest loadtest
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# Its options come from the environment: locust's own are LOCUST_HOST, LOCUST_USERS and so on.
CMD ["locust", "--headless", "--locustfile", "loadtest/locustfile.py"]

# Last, so that a build without a target makes it.
FROM base
WORKDIR /srv/millrace
COPY --from=build /install /usr/local
# Readable by the service's user, whatever the umask of the checkout.
COPY --chmod=755 app app
# To import is to byte-compile, which cannot happen later, on a read-only file system. What a start
# and the health check import weighs 5 MB, the standard library's part included (the base comes
# without), and makes a start four times as fast.
RUN python -c 'import app.__main__, app.exchange.redis, app.store.postgres, \
        app.web.exposition, app.web.key_set, app.web.token_guard, http.client' \
    && install --directory --owner=10001 --group=10001 /data

# AUTH is left unset on purpose: the service refuses to be open to the network unless asked to.
ENV HOST=0.0.0.0 \
    PORT=8000 \
    DATABASE_URL=sqlite:////data/millrace.db \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
VOLUME /data
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# http.client, as urllib would ask a proxy that the environment may name.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --start-interval=1s CMD ["python", "-c", "\
import http.client, os\n\
connection = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8000), timeout=2)\n\
connection.request('GET', '/readyz')\n\
raise SystemExit(connection.getresponse().status != 200)"]
CMD ["python", "-m", "app"]
