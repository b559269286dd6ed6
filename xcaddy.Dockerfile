# The production image: Caddy with this module in it, without cgo, as an unprivileged user.
#
#   docker build -f xcaddy.Dockerfile -t caddy-x402 .
#   docker run -p 80:80 -p 443:443 -p 443:443/udp -v ./Caddyfile:/etc/caddy/Caddyfile -v caddy_data:/data caddy-x402
#
# /data holds the certificates, the token key and the ledger: keep it on a volume, and in the backup.
ARG CADDY_VERSION=2.11.9

FROM caddy:${CADDY_VERSION}-builder-alpine AS build
ARG CADDY_VERSION
ENV CGO_ENABLED=0
WORKDIR /src
COPY . .
RUN xcaddy build "v${CADDY_VERSION}" \
		--with github.com/caddy-x402/caddy-x402=/src \
		--output /out/caddy \
	&& /out/caddy list-modules | grep -qx http.handlers.x402

FROM caddy:${CADDY_VERSION}-alpine
COPY --from=build /out/caddy /usr/bin/caddy
# Ports below 1024 without root.
RUN setcap cap_net_bind_service=+ep /usr/bin/caddy \
	&& addgroup -S -g 1000 caddy \
	&& adduser -S -D -H -h /data -s /sbin/nologin -G caddy -u 1000 caddy \
	&& chown -R caddy:caddy /data /config
USER caddy:caddy

# The admin endpoint tells that Caddy runs. For more, point HEALTH_URL at a site's /health: it asks the store and the chain.
ENV HEALTH_URL=http://127.0.0.1:2019/config/
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 \
	CMD wget -q -T 4 -O /dev/null "$HEALTH_URL"
