package openapitest

import "github.com/getkin/kin-openapi/openapi3"

// closeObjects refuses members that the document does not name, in every object of
// an answer that names some. Requests may carry what is to be ignored.
func closeObjects(doc *openapi3.T) {
	closed := map[*openapi3.Schema]bool{}
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			for _, response := range op.Responses.Map() {
				for _, media := range response.Value.Content {
					closeSchema(media.Schema, closed)
				}
			}
		}
	}
}

// closeSchema closes a schema and those that are part of it.
func closeSchema(ref *openapi3.SchemaRef, closed map[*openapi3.Schema]bool) {
	if ref == nil || ref.Value == nil || closed[ref.Value] {
		return
	}
	s := ref.Value
	closed[s] = true
	if len(s.Properties) > 0 && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
		none := false
		s.AdditionalProperties.Has = &none
	}
	for _, member := range s.Properties {
		closeSchema(member, closed)
	}
	closeSchema(s.Items, closed)
	closeSchema(s.AdditionalProperties.Schema, closed)
	for _, parts := range []openapi3.SchemaRefs{s.OneOf, s.AnyOf, s.AllOf} {
		for _, part := range parts {
			closeSchema(part, closed)
		}
	}
}
